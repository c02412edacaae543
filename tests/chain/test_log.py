"""Numbering, log.csv, scores and differences."""

import csv
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chain import scores
from pipeline.chain.csv_format import CsvFormat
from pipeline.chain.ledger import LOG_COLUMNS, Ledger, number_of
from pipeline.chain.predicted import Predicted
from pipeline.core.errors import Damaged, NotFound, UserError
from pipeline.core.tables import csv_text, parse_csv

from ..conftest import IMAGES, ROOT, fresh, pipeline, refused
from .test_submit import competition


def add(task, labels, recipe="both"):
    submissions = CsvFormat(task).ledger
    with submissions.locked():
        return submissions.add(recipe, CsvFormat(task).text(labels), {"made": recipe})


def labels(*changed: int) -> list[int]:
    """All 0, but 1 at the places in `changed`."""
    return [int(n in changed) for n in range(IMAGES)]


def test_numbers_flips_and_the_best(task):
    assert add(task, labels()).name == "001-both.csv"
    assert add(task, labels(1, 2)).name == "002-both.csv"
    scores.record(task, 1, 0.9, None)
    assert add(task, labels(1, 2, 3), "other").name == "003-other.csv"
    lines = CsvFormat(task).ledger.log()
    assert [(li["number"], li["recipe"], li["flipped_previous"], li["flipped_best"], li["public"]) for li in lines] == [
        ("1", "both", "", "", "0.9"),
        ("2", "both", "2", "", ""),
        ("3", "other", "1", "3", ""),
    ]
    assert CsvFormat(task).ledger.made(3) == {"made": "other"}


def test_a_deleted_submission_frees_no_number(task):
    add(task, labels())
    add(task, labels(1)).unlink()
    assert add(task, labels(2)).name == "003-both.csv"


def test_a_run_that_died_before_the_log_line_is_completed(task):
    path = add(task, labels())
    submissions = CsvFormat(task).ledger
    submissions.log_path.unlink()
    assert submissions.same_as(path.read_text()) == path
    submissions.note(path)
    assert [line["number"] for line in submissions.log()] == ["1"]


def test_scores_are_kept_and_replaced_aloud(task, capsys):
    add(task, labels())
    scores.record(task, 1, 0.92024, 0.91111)
    assert CsvFormat(task).ledger.log()[0] | {} == {
        **CsvFormat(task).ledger.log()[0],
        "public": "0.92024",
        "private": "0.91111",
    }
    scores.record(task, 1, 0.93, None)
    assert "public was 0.92024" in capsys.readouterr().out
    scores.show_log(task)
    assert "<- best public" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "kind", "parts"),
    [
        ((9, 0.5, None), NotFound, ["submission 9", "Known: 1"]),
        ((1, 92.0, None), UserError, ["PUBLIC=92.0", "between 0 and 1"]),
        ((1, float("nan"), None), UserError, ["PUBLIC=nan"]),
        ((1, None, None), UserError, ["PUBLIC= or PRIVATE="]),
    ],
)
def test_wrong_scores(task, arguments, kind, parts):
    add(task, labels())
    with refused(kind, *parts):
        scores.record(task, *arguments)


def test_diff(task, capsys):
    add(task, labels())
    add(task, labels(1, 2, 3))
    scores.show_difference(task, 1, 2)
    said = capsys.readouterr().out
    assert f"3 of {IMAGES} labels flipped from 1 to 2" in said
    assert "Cats  Dogs     3" in said
    assert "would be noise" in said
    scores.record(task, 1, 0.5, None)
    scores.record(task, 2, 0.6, None)
    capsys.readouterr()
    scores.show_difference(task, 1, 2)
    assert "+0.10000 (+1 images)" in capsys.readouterr().out


def test_flips_against_the_best_are_those_against_what_is_best_now(task, capsys):
    add(task, labels())
    add(task, labels(1))
    add(task, labels(1, 2, 3))
    scores.record(task, 1, 0.5, None)
    scores.record(task, 2, 0.9, None)
    capsys.readouterr()
    scores.show_log(task)
    lines = [line for line in capsys.readouterr().out.splitlines()[1:] if not line.startswith("    ")]
    assert [line.split()[4:6] for line in lines] == [["1", "0.5"], ["1", "0"], ["2", "2"]]


def test_a_deleted_best_submission_stops_nothing(task, capsys):
    path = add(task, labels())
    scores.record(task, 1, 0.5, None)
    path.unlink()
    assert add(task, labels(1)).name == "002-both.csv"
    assert CsvFormat(task).ledger.log()[1]["flipped_best"] == ""
    scores.show_log(task)
    assert "<- best public" in capsys.readouterr().out


def test_scores_that_cannot_be_are_not_called_significant(task, capsys):
    add(task, labels())
    add(task, labels(1))
    scores.record(task, 1, 0.5, None)
    scores.record(task, 2, 0.9, None)
    capsys.readouterr()
    scores.show_difference(task, 1, 2)
    assert "differ by 4 images, but only 1 labels differ: one of the scores is mistyped" in capsys.readouterr().out


def test_a_log_of_another_form_is_refused(task):
    add(task, labels())
    CsvFormat(task).ledger.log_path.write_text("a,b\n1,2\n")
    with refused(Damaged, "log.csv", "number,time,recipe"):
        CsvFormat(task).ledger.log()


cell = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.lists(cell, min_size=len(LOG_COLUMNS), max_size=len(LOG_COLUMNS)), max_size=5))
def test_any_cells_come_back_as_written(lines):
    assert parse_csv(csv_text(LOG_COLUMNS, lines), "log") == (list(LOG_COLUMNS), lines)


score = st.one_of(st.just(""), st.floats(0, 1).map(str))


@given(st.lists(st.tuples(st.integers(1, 10**6), cell, score, score), unique_by=lambda line: line[0], max_size=5))
def test_the_log_comes_back_as_written(tmp_path_factory, lines):
    submissions = Ledger(tmp_path_factory.mktemp("log"), Predicted("id", "label"))
    written = [
        dict.fromkeys(LOG_COLUMNS, "") | {"number": str(n), "recipe": text, "public": public, "private": private}
        for n, text, public, private in lines
    ]
    submissions.write_log(written)
    assert submissions.log() == written


def test_from_the_command_line(project_root, command):
    assert "no submissions yet" in command(project_root, "log", "--competition", "tiny").stdout
    assert pipeline(project_root, "submit", "--competition", "tiny").returncode == 0
    result = command(project_root, "score", "--competition", "tiny", "--n", "1", "--public", "0.25")
    assert (result.returncode, result.stdout) == (0, "score      tiny 1 both: public 0.25\n")
    with open(project_root / "submissions" / "tiny" / "log.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["number"], line["recipe"], line["public"]) == ("1", "both", "0.25")
    assert command(project_root, "diff", "--competition", "tiny", "--a", "1", "--b", "1").returncode == 0
    assert fresh(project_root).recipe.public_board == 10


def labels_of(code: int) -> list[int]:
    """The first two images' labels are the digits of `code` in base 3, so that contents repeat now and then."""
    return [code % 3, code // 3, *[0] * (IMAGES - 2)]


several = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "die before the line"]), st.integers(0, 8)),
        st.tuples(st.just("score"), st.integers(0, 9), st.floats(0, 1)),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.tuples(st.just("diff"), st.integers(0, 9), st.integers(0, 9)),
    ),
    max_size=12,
)


class Expected:
    """What the log must hold after any actions: {number: score or None}; and {number: code} of the files left."""

    def __init__(self, task):
        self.task, self.lines, self.files, self.highest = task, {}, {}, 0
        self.submissions = CsvFormat(task).ledger

    def act(self, what: str, n: int, *more) -> None:
        picked = sorted(self.files)[n % len(self.files)] if self.files else None
        if what in ("add", "die before the line"):
            self.add(n, what == "add")
        elif picked is None:
            return
        elif what == "delete":
            self.submissions.path(picked).unlink()
            del self.files[picked]
        elif what == "diff":
            other = sorted(self.files)[more[0] % len(self.files)]
            scores.show_difference(self.task, picked, other)
        elif picked in self.lines:
            scores.record(self.task, picked, more[0], None)
            self.lines[picked] = more[0]
        self.verify()

    def add(self, code: int, finished: bool) -> None:
        text, before = CsvFormat(self.task).text(labels_of(code)), self.submissions.log()
        known = self.submissions.same_as(text)
        assert (known is None) == (code not in self.files.values())
        path = known or self.submissions.add("both", text, {})
        number = number_of(path)
        if known:
            self.submissions.note(path)
        else:
            assert number > self.highest, "a number is never given twice"
        if not known and not finished:
            self.submissions.write_log(before)
        else:
            self.lines.setdefault(number, None)
        self.files[number], self.highest = code, max(number, self.highest)

    def verify(self) -> None:
        lines = self.submissions.log()
        assert sorted(int(line["number"]) for line in lines) == sorted(self.lines)
        assert {int(line["number"]): float(line["public"]) if line["public"] else None for line in lines} == self.lines
        scores, best = [score for score in self.lines.values() if score is not None], self.submissions.best()
        assert (best is None) == (not scores)
        assert best is None or self.lines[int(best["number"])] == max(scores)


def random_actions(root):
    @given(several)
    def run(actions):
        shutil.rmtree(root / "submissions", ignore_errors=True)
        expected = Expected(fresh(root))
        for action in actions:
            expected.act(*action)

    return run


def test_random_actions_never_lose_a_line(project_root, capsys):
    settings(max_examples=40)(random_actions(project_root))()


@pytest.mark.faults
def test_many_random_actions_never_lose_a_line(project_root, capsys):
    settings(max_examples=1500)(random_actions(project_root))()


def test_the_log_is_narrow_and_shows_notes_and_accuracy(task, capsys):
    add(task, labels())
    add(task, labels(1, 2), "a-recipe-with-a-rather-long-name")
    scores.record(task, 2, 0.92024, 0.91111)
    scores.remark(task, 1, "the  baseline, \n with commas")
    root = task.project.root
    (root / "solution.csv").write_text((root / "submissions" / "tiny" / "001-both.csv").read_text())
    competition(root, solution="solution.csv")
    capsys.readouterr()
    scores.show_log(fresh(root))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "the baseline, with commas" in said and "1.0000" in said
    assert f"{1 - 2 / IMAGES:.4f}" in said
    scores.remark(task, 1, "")
    assert "removed: the baseline, with commas" in capsys.readouterr().out
    scores.show_log(fresh(root))
    assert "baseline" not in capsys.readouterr().out
    with refused(NotFound, "submission 9"):
        scores.remark(task, 9, "x")


def test_the_log_needs_no_torch(project_root):
    code = "import sys; from pipeline.__main__ import main; main(['log', '--competition', 'tiny']); "
    code += "sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=project_root, env=environment).returncode == 0
