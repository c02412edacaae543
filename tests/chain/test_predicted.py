"""Competitions that score probabilities or the best few labels: what is submitted, checked, logged and compared."""

import csv
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.chain import classes, scores
from pipeline.chain.csv_format import CsvFormat, as_shares
from pipeline.chain.main_job import submit
from pipeline.chain.predicted import Predicted
from pipeline.core.errors import Damaged, Mismatch, NotFound, UserError
from pipeline.core.tables import csv_text
from pipeline.report import collect, flips

from ..conftest import CLASSES, IMAGES, fresh, refused, write_yaml
from .test_submit import competition

SHARES = {"columns": {"id": "stem", "{class_name}": "probability"}, "public_board": None}
BEST = {"columns": {"Image": "file_name", "Id": "label"}, "top": 2}


def rows(path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))


def ledger_file(root):
    return CsvFormat(fresh(root)).ledger.files()[0]


def labels(root, number: int) -> np.ndarray:
    return collect.labels_of(fresh(root), number)[1].labels


def test_probabilities_are_the_submission(project_root):
    competition(project_root, **SHARES, lower_is_better=True)
    task = fresh(project_root)
    header, *answers = rows(submit(task, "both"))
    assert header == ["id", *CLASSES] and len(answers) == IMAGES
    refined = classes.decide(task, "both").refined.double()
    given_NC = np.array([[float(cell) for cell in row[1:]] for row in answers])
    np.testing.assert_allclose(given_NC, refined / refined.sum(1, keepdim=True), rtol=1e-7)
    assert [row[0] for row in answers] == [str(n) for n in range(IMAGES)]
    assert labels(project_root, 1).tolist() == refined.argmax(1).tolist()


def test_the_best_few_are_the_submission(project_root):
    competition(project_root, **BEST)
    header, *answers = rows(submit(fresh(project_root), "both"))
    best = classes.decide(fresh(project_root), "both").refined.sort(dim=1, descending=True, stable=True).indices
    assert header == ["Image", "Id"]
    assert [row[1] for row in answers] == [f"{a} {b}" for a, b, _ in best.tolist()]
    assert labels(project_root, 1).tolist() == best[:, 0].tolist()


@pytest.mark.parametrize("recipe", [{**SHARES, "lower_is_better": True}, BEST], ids=["probabilities", "top"])
def test_they_are_logged_compared_and_scored_by_their_labels(project_root, recipe, capsys, monkeypatch):
    competition(project_root, **recipe)
    submit(fresh(project_root), "both")
    submit(fresh(project_root), "one")
    moved = int((labels(project_root, 1) != labels(project_root, 2)).sum())
    assert moved, "no flips at all would prove nothing"
    assert CsvFormat(fresh(project_root)).ledger.log()[1]["flipped_previous"] == str(moved)
    capsys.readouterr()
    scores.show_difference(fresh(project_root), 1, 2)
    said = capsys.readouterr().out
    assert f"{moved} of {IMAGES} labels flipped" in said and "does not score the share of right labels" in said
    page = flips.write(fresh(project_root), 1, 2).read_text()
    assert page.count('class="picture"') == moved and "noise of the difference" not in page
    scores.record(fresh(project_root), 1, 0.4, None)
    scores.record(fresh(project_root), 2, 0.7, None)
    best = CsvFormat(fresh(project_root)).ledger.best()
    assert best["number"] == ("1" if "lower_is_better" in recipe else "2")
    monkeypatch.chdir(project_root)
    assert main(["advise", "COMPETITION=tiny", "ENSEMBLE=one", "DTYPE=fp32"]) == 0
    assert submit(fresh(project_root), "one").name == "002-one.csv", "the same content is not written twice"


def test_log_loss_has_no_upper_end(project_root):
    competition(project_root, **SHARES, lower_is_better=True)
    submit(fresh(project_root), "one")
    scores.record(fresh(project_root), 1, 2.31, None)
    with refused(UserError, "PUBLIC=-0.1"):
        scores.record(fresh(project_root), 1, -0.1, None)
    competition(project_root, **SHARES, lower_is_better=False)
    with refused(UserError, "PUBLIC=1.2", "lower_is_better"):
        scores.record(fresh(project_root), 1, 1.2, None)


def test_a_solution_in_the_same_columns(project_root, capsys):
    truth = [n % 3 for n in range(IMAGES)]
    shares = [[str(n), *("1" if c == label else "0" for c in range(3))] for n, label in enumerate(truth)]
    (project_root / "solution.csv").write_text(csv_text(["id", *CLASSES], shares))
    competition(project_root, **SHARES, solution="solution.csv")
    assert CsvFormat(fresh(project_root)).solution == truth
    submit(fresh(project_root), "both")
    right = (labels(project_root, 1) == np.array(truth)).mean()
    said = " ".join(capsys.readouterr().out.split())
    assert f"accuracy {right:.4f}" in said
    given_NC = np.array([[float(cell) for cell in row[1:]] for row in rows(ledger_file(project_root))[1:]])
    assert f"log loss {-np.log(given_NC[range(IMAGES), truth].clip(2**-52)).mean():.5f} against" in said


def test_the_best_few_are_measured_by_their_places(project_root, capsys):
    truth = [n % 3 for n in range(IMAGES)]
    (project_root / "solution.csv").write_text(
        csv_text(["Image", "Id"], [[f"{n}.jpg", str(label)] for n, label in enumerate(truth)])
    )
    competition(project_root, **BEST, solution="solution.csv")
    submit(fresh(project_root), "both")
    places = [
        row[1].split().index(str(label)) if str(label) in row[1].split() else None
        for row, label in zip(rows(ledger_file(project_root))[1:], truth, strict=True)
    ]
    expected = sum(1 / (place + 1) for place in places if place is not None) / IMAGES
    assert 0 < expected < 1
    assert f"MAP@2 {expected:.4f} against" in " ".join(capsys.readouterr().out.split())


def test_a_sample_gives_the_order_of_the_rows(project_root):
    order = [str(n) for n in reversed(range(IMAGES))]
    sample = csv_text(["id", "class 0", "class 1", "class 2"], [[i, "0.3", "0.3", "0.4"] for i in order])
    (project_root / "sample.csv").write_text(sample)
    columns = {"id": "stem", "class {label}": "probability"}
    competition(project_root, columns=columns, sample_submission="sample.csv")
    written = rows(submit(fresh(project_root), "both"))
    assert written[0] == ["id", "class 0", "class 1", "class 2"]
    assert [row[0] for row in written[1:]] == order


def test_what_is_no_such_submission_is_refused(project_root):
    competition(project_root, **SHARES)
    form = CsvFormat(fresh(project_root))
    good = [[i, "0.2", "0.3", "0.5"] for i in form.ids]
    form.check(csv_text(form.header, good))
    for cell, kind in (("0.4", Damaged), ("nan", Damaged), ("-0.3", Damaged), ("", Damaged), ("inf", Damaged)):
        with refused(kind, "'5'"):
            form.check(csv_text(form.header, [*good[:5], ["5", "0.2", cell, "0.5"], *good[6:]]))
    with refused(Mismatch, "not those that were decided"):
        form.check(csv_text(form.header, good), [0] * IMAGES)
    with refused(Mismatch, "header"):
        form.check(csv_text(["id", *reversed(CLASSES)], good))
    competition(project_root, **BEST)
    form = CsvFormat(fresh(project_root))
    good = [[i, "2 0"] for i in form.ids]
    form.check(csv_text(form.header, good))
    for cell in ("2", "2 2", "2 0 1", "2 7", "2,0", "2  0"):
        with refused(Mismatch, "5.jpg"):
            form.check(csv_text(form.header, [*good[:5], ["5.jpg", cell], *good[6:]]))


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        ({"columns": {"id": "stem", "p": "probability"}}, (UserError, "columns", "'p'", "{class_name}")),
        ({**SHARES, "top": 2}, (UserError, "top")),
        ({**BEST, "top": 4}, (Mismatch, "top: 4", "3 classes")),
        ({**BEST, "columns": {"id": "stem", "Id": "class_name"}}, (Mismatch, "top", "'Big Birds'")),
        ({"columns": {"Cats": "stem", "{class_name}": "probability"}}, (Mismatch, "columns", "one name")),
    ],
)
def test_recipes_that_cannot_be_meant(project_root, recipe, parts):
    competition(project_root, **recipe)
    with refused(*parts):
        submit(fresh(project_root), "both")
    assert not (project_root / "cache" / "tiny").exists(), "told before anything is computed"


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=20))
def test_what_is_written_has_the_labels_that_were_decided(values):
    """Whatever rounding does: ties and the order of all float32 values are kept."""
    values_NC = torch.tensor(values)
    cells = as_shares(values_NC)
    header, names = ["id", "a", "b", "c"], dict(zip("abc", "012", strict=True))
    read = Predicted("id", classes=names)
    lines = [[str(n), *row] for n, row in enumerate(cells)]
    read.check(header, lines, list("012"), "it")
    assert list(read.labels(header, lines, "it").values()) == [str(c) for c in values_NC.argmax(1).tolist()]


def test_zeros_are_told_where_they_are_submitted(project_root, capsys):
    write_yaml(project_root / "ensembles" / "sharp.yaml", {"members": {"vit": 1}, "threshold": 0.3})
    competition(project_root, **SHARES)
    submit(fresh(project_root), "sharp")
    assert "have a class of probability 0" in capsys.readouterr().err
    write_yaml(project_root / "ensembles" / "sharp.yaml", {"members": {"vit": 1}, "threshold": 0})
    submit(fresh(project_root), "sharp")
    assert "probability 0" not in capsys.readouterr().err


def test_a_missing_column_is_named():
    with refused(NotFound, "it: no column 'dog'"):
        Predicted("id", classes={"cat": "0", "dog": "1"}).labels(["id", "cat"], [["a", "1"]], "it")
