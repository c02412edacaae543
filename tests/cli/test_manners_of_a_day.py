"""What a user sees every day: what to do next, which competition is meant, tables that fit, what else is written."""

import csv
import io
import sys

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.core import console
from pipeline.core.tables import table

from ..conftest import CLASSES, IMAGES, write_yaml


@pytest.fixture
def root(project_root, monkeypatch):
    monkeypatch.chdir(project_root)
    return project_root


def test_a_competition_is_chosen_once_and_named(root, capsys):
    assert main(["use", "COMPETITION=nowhere"]) == 1
    assert "no competitions/nowhere.yaml" in capsys.readouterr().err
    assert main(["use", "COMPETITION=tiny"]) == 0
    assert main(["use"]) == 0
    assert "use        tiny: is meant where COMPETITION is not given" in capsys.readouterr().out
    assert main(["submit", "ENSEMBLE=one", "DTYPE=fp32"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "use        tiny: chosen by make use (.competition)"
    assert said[-1].startswith("next: make score COMPETITION=tiny N=1 ")
    assert (root / "submissions" / "tiny" / "001-one.csv").exists()


def test_each_step_says_the_next(root, capsys):
    for ensemble in ("one", "both"):
        main(["submit", "COMPETITION=tiny", f"ENSEMBLE={ensemble}", "DTYPE=fp32"])
    second = capsys.readouterr().out.splitlines()[-1]
    assert second.startswith("next: make diff COMPETITION=tiny; make score COMPETITION=tiny N=2"), second
    assert main(["diff", "COMPETITION=tiny"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("next: make score COMPETITION=tiny N=")


def test_what_else_a_competition_asks_for(root, capsys):
    recipe = yaml.safe_load((root / "competitions" / "tiny.yaml").read_text())
    write_yaml(root / "competitions" / "tiny.yaml", {**recipe, "also": {"probabilities": True, "top": 2}})
    assert main(["submit", "COMPETITION=tiny", "ENSEMBLE=one", "DTYPE=fp32"]) == 0
    with open(root / "submissions" / "tiny" / "001-one.csv", newline="") as file:
        submitted = list(csv.reader(file))
    with open(root / "reports" / "tiny" / "001-probabilities.csv", newline="") as file:
        shares = list(csv.reader(file))
    with open(root / "reports" / "tiny" / "001-top2.csv", newline="") as file:
        best = list(csv.reader(file))
    at, label = submitted[0].index(shares[0][0]), 1 - submitted[0].index(shares[0][0])
    assert len(shares[0]) == 1 + len(CLASSES) and len(shares) == len(best) == IMAGES + 1
    for answer, row, top in zip(submitted[1:], shares[1:], best[1:], strict=True):
        values = [float(value) for value in row[1:]]
        assert row[0] == answer[at] and sum(values) == pytest.approx(1, abs=1e-4)
        assert shares[0][1 + values.index(max(values))] == answer[label]
        assert top[label].split(" ")[0] == answer[label] and len(set(top[label].split(" "))) == 2


def test_advice_begins_with_three_sentences(root, capsys):
    assert main(["advise", "COMPETITION=tiny", "ENSEMBLE=both", "DTYPE=fp32"]) == 0
    said = capsys.readouterr().out
    first = said[said.index("Your members agree on") :].splitlines()[:3]
    assert all(line.endswith(".") and len(line) <= 120 for line in first), first
    assert first[2].startswith("Look first at the ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_tables_fit_and_warnings_have_a_colour(monkeypatch):
    wide = [("a", "x" * 200, 12), ("b", "short", 3)]
    whole = table(("name", "text", "count"), wide)
    assert "x" * 200 in whole, "where it is no terminal nothing is cut"
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    cut = table(("name", "text", "count"), wide)
    assert max(map(len, cut.splitlines())) <= 80 and "…" in cut and "12" in cut
    monkeypatch.setenv("COLUMNS", "300")
    assert table(("name", "text", "count"), wide) == whole
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert console.coloured("next:", console.GREEN, Terminal()) == "\033[32mnext:\033[0m"
    assert console.coloured("next:", console.GREEN, io.StringIO()) == "next:"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.coloured("next:", console.GREEN, Terminal()) == "next:"
