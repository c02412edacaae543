"""What a user sees every day: what to do next, which competition is meant, tables that fit, what else is written."""

import csv
import io
import re
import sys
from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.cli._options import verbs
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


def test_the_best_labels_beside_probabilities_are_called_labels_and_no_more_than_classes(root, capsys):
    path, columns = root / "competitions" / "tiny.yaml", {"id": "stem", "p_{class_name}": "probability"}
    recipe = {**yaml.safe_load(path.read_text()), "columns": columns}
    write_yaml(path, {**recipe, "also": {"top": 2}})
    assert main(["submit", "COMPETITION=tiny", "ENSEMBLE=one", "DTYPE=fp32"]) == 0
    best = (root / "reports" / "tiny" / "001-top2.csv").read_text().splitlines()
    assert best[0] == "id,label" and len(best) == IMAGES + 1
    write_yaml(path, {**recipe, "also": {"top": len(CLASSES) + 1}})
    assert main(["submit", "COMPETITION=tiny", "ENSEMBLE=one", "DTYPE=fp32"]) == 1
    assert f"also.top: {len(CLASSES) + 1} of {len(CLASSES)} classes" in capsys.readouterr().err


def test_advice_begins_with_three_sentences(root, capsys):
    assert main(["advise", "COMPETITION=tiny", "ENSEMBLE=both", "DTYPE=fp32"]) == 0
    said = capsys.readouterr().out
    first = said.splitlines()[:3]
    assert first[0].startswith("Your members agree on ")
    assert all(line.endswith(".") and len(line) <= 120 for line in first), first
    assert first[2].startswith("Look first at the ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch):
    """What a pipe has, and a terminal that says nothing."""
    monkeypatch.delenv("COLUMNS")


def test_tables_fit_and_nothing_of_them_is_cut(narrow, monkeypatch):
    rows = [("a", "some words " * 20, 12), ("b", "x" * 90, 3)]
    fitting = table(("name", "text", "count"), rows)
    assert max(map(len, fitting.splitlines())) <= 80
    assert "".join(fitting.split()).count("someword") == 20 and "".join(fitting.split()).count("x") >= 91
    monkeypatch.setenv("COLUMNS", "300")
    assert "x" * 90 in table(("name", "text", "count"), rows)
    assert len(table(("name", "text", "count"), rows).splitlines()) == 3


@given(
    st.lists(st.lists(st.text("ab -/", max_size=60), min_size=4, max_size=4), min_size=1, max_size=6),
    st.integers(40, 200),
)
def test_any_table_fits_with_all_that_is_in_it(rows, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        lines = table(("one", "two", "three", "four"), rows).splitlines()
    assert max(map(len, lines)) <= columns
    assert Counter("".join(lines).replace(" ", "")) == Counter(
        "onetwothreefour" + "".join(cell for row in rows for cell in row).replace(" ", "")
    )


def test_lines_break_between_words_and_paths_stay_whole(narrow, capsys):
    path = "reports/" + "x" * 90 + ".html"
    console.say("stage", "subject", "words that are many " * 8 + path)
    console.warn("guard: " + "words " * 30 + "\n  Cats       3  ####")
    console.next_step("make something; " * 10)
    said = capsys.readouterr()
    lines = [*said.out.splitlines(), *said.err.splitlines()]
    assert [line.strip() for line in lines if len(line) > 80] == [path]
    assert "  Cats       3  ####" in said.err.splitlines() and said.out.splitlines()[1].startswith(" " * 11 + "w")


def test_an_error_is_one_line(narrow, root, capsys):
    assert main(["submit", "COMPETITION=" + "long-" * 30]) == 1
    assert capsys.readouterr().err.count("\n") == 1


VERBS = [
    ["plan"],
    ["submit", "ENSEMBLE=both"],
    ["submit", "ENSEMBLE=one"],
    ["diff"],
    ["score", "N=1", "PUBLIC=0.5"],
    ["score", "N=2", "PUBLIC=0.7"],
    ["diff"],
    ["note", "N=1", "TEXT=" + "a long note of many words " * 6],
    ["log"],
    ["advise", "ENSEMBLE=both"],
    ["sheet"],
    ["use"],
    ["models"],
    ["verify"],
    ["clean-cache", "DRY=1"],
    ["analyse"],
    ["predict", "MODEL=vit", "IMAGES=data/tiny", "LABELS=a,b"],
    ["prompts-rank", "MODEL=vit", "UNLABELLED=1"],
]


def test_nothing_that_a_verb_says_is_wider_than_80_columns(narrow, root, capsys):
    """But for a path or another word that is longer by itself."""
    for verb, *arguments in VERBS:
        asked = ["COMPETITION=tiny"] if verb not in ("models", "verify", "clean-cache", "predict") else []
        computes = ["DTYPE=fp32"] if verb in ("plan", "submit", "advise", "predict", "prompts-rank") else []
        assert main([verb, *arguments, *asked, *computes]) == 0, verb
        said = capsys.readouterr()
        wide = [line for line in (said.out + said.err).splitlines() if len(line) > 80]
        assert all(max(map(len, line.split(" "))) > 40 for line in wide), (verb, wide)


WRITE = {  # verbs that write files about a competition, and what they are asked here
    "preprocess": [],
    "infer": [],
    "ensemble": [],
    "threshold": [],
    "submit": [],
    "score": ["N=1", "PUBLIC=0.5"],
    "note": ["N=1", "TEXT=x"],
    "sheet": [],
    "advise": [],
    "report": [],
    "analyse": [],
    "diff": [],
    "prompts-rank": ["MODEL=vit", "UNLABELLED=1"],
    "use": [],
    "pack": ["ENSEMBLE=both"],
    "export": ["MODEL=vit"],
    "new": ["IMAGES=data/tiny", "CLASSES=a,b"],
}
ELSEWHERE = {"scores", "upload", "unpack", "prompts-write", "workbench"}  # tested with a server or a browser
NO_COMPETITION = {
    "benchmark",
    "clean-cache",
    "inspect",
    "kshot",
    "models",
    "predict",
    "probe",
    "sweep",
    "train",
    "verify",
}
READ = {"plan", "log"}


@pytest.mark.slow
def test_every_verb_that_writes_names_the_competition(root, capsys):
    assert {*WRITE, *ELSEWHERE, *NO_COMPETITION, *READ} == set(verbs())
    recipe = yaml.safe_load((root / "competitions" / "tiny.yaml").read_text())
    write_yaml(root / "competitions" / "board.yaml", {**recipe, "prompts": "tiny"})  # no other thing is called so
    for ensemble in ("both", "one"):
        main(["submit", "COMPETITION=board", f"ENSEMBLE={ensemble}", "DTYPE=fp32"])
    for verb, arguments in WRITE.items():
        name = "mine" if verb == "new" else "board"
        capsys.readouterr()
        assert main([verb, f"COMPETITION={name}", *arguments]) == 0, verb
        said = capsys.readouterr().out
        assert re.search(rf"\b{name}\b", said), f"{verb} does not name the competition: {said}"


def test_errors_warnings_next_steps_gains_and_losses_have_a_colour(monkeypatch, root, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    console.next_step("make plan")
    console.warn("odd")
    assert main(["submit", "COMPETITION=none"]) == 1
    assert sys.stdout.getvalue().startswith("\033[32mnext:\033[0m make plan")
    assert sys.stderr.getvalue().startswith("\033[33mwarning:\033[0m odd\n\033[31merror:\033[0m no ")
    assert (console.signed("+1", 1), console.signed("-1", -1), console.signed("0", 0)) == (
        "\033[32m+1\033[0m",
        "\033[31m-1\033[0m",
        "0",
    )
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.signed("+1", 1) == "+1"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert console.signed("+1", 1) == "+1"
