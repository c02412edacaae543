"""Numbering, log.csv, scores and differences."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import log
from pipeline.errors import UserError
from pipeline.submissions import LOG_COLUMNS, Submissions
from pipeline.submit import submissions_of, to_csv

from .conftest import IMAGES, fresh, pipeline


def add(job, labels, recipe="both"):
    submissions = submissions_of(job)
    with submissions.locked():
        return submissions.add(recipe, to_csv(job, labels), {"made": recipe})


def labels(*changed: int) -> list[int]:
    """All 0, but 1 at the places in `changed`."""
    return [int(n in changed) for n in range(IMAGES)]


def test_numbers_flips_and_the_best(job):
    assert add(job, labels()).name == "001-both.csv"
    assert add(job, labels(1, 2)).name == "002-both.csv"
    log.score(job, 1, 0.9, None)
    assert add(job, labels(1, 2, 3), "other").name == "003-other.csv"
    lines = submissions_of(job).log()
    assert [(li["number"], li["recipe"], li["flipped_previous"], li["flipped_best"], li["public"]) for li in lines] == [
        ("1", "both", "", "", "0.9"),
        ("2", "both", "2", "", ""),
        ("3", "other", "1", "3", ""),
    ]
    assert submissions_of(job).made(3) == {"made": "other"}


def test_a_deleted_submission_frees_no_number(job):
    add(job, labels())
    add(job, labels(1)).unlink()
    assert add(job, labels(2)).name == "003-both.csv"


def test_a_run_that_died_before_the_log_line_is_completed(job):
    path = add(job, labels())
    submissions = submissions_of(job)
    submissions.log_path.unlink()
    assert submissions.same_as(path.read_text()) == path
    submissions.note(path)
    assert [line["number"] for line in submissions.log()] == ["1"]


def test_scores_are_kept_and_replaced_aloud(job, capsys):
    add(job, labels())
    log.score(job, 1, 0.92024, 0.91111)
    assert submissions_of(job).log()[0] | {} == {
        **submissions_of(job).log()[0], "public": "0.92024", "private": "0.91111",
    }  # fmt: skip
    log.score(job, 1, 0.93, None)
    assert "public was 0.92024" in capsys.readouterr().out
    log.run(job)
    assert "<- best public" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 0.5, None), "no submission 9 in .* Known: 1"),
        ((1, 92.0, None), "PUBLIC=92.0: a score is a share between 0 and 1"),
        ((1, float("nan"), None), "PUBLIC=nan"),
        ((1, None, None), "give PUBLIC= or PRIVATE="),
    ],
)
def test_wrong_scores(job, arguments, message):
    add(job, labels())
    with pytest.raises(UserError, match=message):
        log.score(job, *arguments)


def test_diff(job, capsys):
    add(job, labels())
    add(job, labels(1, 2, 3))
    log.diff(job, 1, 2)
    said = capsys.readouterr().out
    assert f"3 of {IMAGES} labels flipped from 1 to 2" in said
    assert "Cats  Dogs     3" in said
    assert "would be noise" in said
    log.score(job, 1, 0.5, None)
    log.score(job, 2, 0.6, None)
    capsys.readouterr()
    log.diff(job, 1, 2)
    assert "+0.10000 (+1 images)" in capsys.readouterr().out


def test_flips_against_the_best_are_those_against_what_is_best_now(job, capsys):
    add(job, labels())
    add(job, labels(1))
    add(job, labels(1, 2, 3))
    log.score(job, 1, 0.5, None)
    log.score(job, 2, 0.9, None)
    capsys.readouterr()
    log.run(job)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[4:6] for line in lines] == [["1", "0.5"], ["1", "0"], ["2", "2"]]


def test_a_deleted_best_submission_stops_nothing(job, capsys):
    path = add(job, labels())
    log.score(job, 1, 0.5, None)
    path.unlink()
    assert add(job, labels(1)).name == "002-both.csv"
    assert submissions_of(job).log()[1]["flipped_best"] == ""
    log.run(job)
    assert "<- best public" in capsys.readouterr().out


def test_scores_that_cannot_be_are_not_called_significant(job, capsys):
    add(job, labels())
    add(job, labels(1))
    log.score(job, 1, 0.5, None)
    log.score(job, 2, 0.9, None)
    capsys.readouterr()
    log.diff(job, 1, 2)
    assert "differ by 4 images, but only 1 labels differ: one of the scores is mistyped" in capsys.readouterr().out


def test_a_log_of_another_form_is_refused(job):
    add(job, labels())
    submissions_of(job).log_path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="the columns must be number,time,recipe"):
        submissions_of(job).log()


cell = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=12)


@given(st.lists(st.lists(cell, min_size=8, max_size=8), max_size=5))
def test_the_log_comes_back_as_written(tmp_path_factory, lines):
    submissions = Submissions(tmp_path_factory.mktemp("log"), ("id", "label"))
    written = [dict(zip(LOG_COLUMNS, line, strict=True)) for line in lines]
    submissions.write_log(written)
    assert submissions.log() == written


def test_from_the_command_line(project_root):
    assert "no submissions yet" in pipeline(project_root, "log", "--competition", "tiny").stdout
    assert pipeline(project_root, "submit", "--competition", "tiny").returncode == 0
    result = pipeline(project_root, "score", "--competition", "tiny", "--n", "1", "--public", "0.25")
    assert (result.returncode, result.stdout) == (0, "score      1 both: public 0.25\n")
    with open(project_root / "submissions" / "tiny" / "log.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["number"], line["recipe"], line["public"]) == ("1", "both", "0.25")
    assert pipeline(project_root, "diff", "--competition", "tiny", "--a", "1", "--b", "1").returncode == 0
    assert fresh(project_root).competition.public_board == 10
