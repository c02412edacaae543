"""The CSV, its checks, its provenance."""

import csv
import json
import subprocess

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chain import suspicions, threshold
from pipeline.chain.columns import Columns
from pipeline.chain.csv_format import CsvFormat
from pipeline.chain.main_job import submit
from pipeline.chain.stage import made
from pipeline.core.errors import Damaged, Mismatch, UserError

from ..conftest import CLASSES, IMAGES, fresh, refused, write_yaml


def competition(root, **changes) -> None:
    import yaml

    path = root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), **changes})


def rows(path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_the_file_has_the_form_of_the_original(project_root):
    content = submit(fresh(project_root), "both").read_bytes()
    lines = content.decode().split("\n")
    assert lines[0] == "id_idx,label"
    assert lines[-1] == ""
    assert b"\r" not in content
    assert [line.split(",")[0] for line in lines[1:-1]] == [str(n) for n in range(IMAGES)]
    assert {line.split(",")[1] for line in lines[1:-1]} <= {"0", "1", "2"}


@pytest.mark.parametrize(
    ("columns", "first"),
    [({"id": "file_name", "label": "class_name"}, ["0.jpg", *CLASSES]), ({"label": "label", "id": "stem"}, None)],
)
def test_columns_hold_what_the_competition_says(project_root, columns, first):
    competition(project_root, columns=columns)
    table = rows(submit(fresh(project_root), "both"))
    assert table[0] == list(columns)
    if first:
        assert table[1][0] == first[0]
        assert {row[1] for row in table[1:]} <= set(first[1:])
    else:
        assert [row[1] for row in table[1:]] == [str(n) for n in range(IMAGES)]


def sample(root, ids, header=("id_idx", "label")) -> None:
    (root / "sample.csv").write_text("\n".join([",".join(header), *(f"{i},0" for i in ids)]) + "\n")
    competition(root, sample_submission="sample.csv")


def test_rows_follow_the_sample_submission(project_root):
    plain = dict(rows(submit(fresh(project_root), "both"))[1:])
    order = [str(n) for n in reversed(range(IMAGES))]
    sample(project_root, order)
    table = rows(submit(fresh(project_root), "both"))
    assert [row[0] for row in table[1:]] == order
    assert dict(table[1:]) == plain


@pytest.mark.parametrize(
    ("ids", "header", "kind", "parts"),
    [
        (range(IMAGES - 1), ("id_idx", "label"), Mismatch, ["22 ids", "23", "without row: ['22']"]),
        (range(1, IMAGES + 1), ("id_idx", "label"), Mismatch, ["Without image: ['23']; without row: ['0']"]),
        ([*range(IMAGES), 0], ("id_idx", "label"), Damaged, ["'id_idx'"]),
        (range(IMAGES), ("id", "label"), Mismatch, ["columns are id_idx,label", "has id,label"]),
    ],
)
def test_a_sample_submission_that_does_not_fit_is_refused_before_any_work(project_root, ids, header, kind, parts):
    sample(project_root, ids, header)
    with refused(kind, *parts):
        submit(fresh(project_root), "both")
    assert not (project_root / "submissions").exists()
    assert not list((project_root / "cache").rglob("*.pt"))


def test_stems_that_are_not_unique_are_refused(project_root):
    (project_root / "data" / "tiny" / "7.png").write_bytes((project_root / "data" / "tiny" / "7.jpg").read_bytes())
    competition(project_root, columns={"id": "stem", "label": "label"})
    with refused(Mismatch, "stem", "['7']"):
        submit(fresh(project_root), "both")


def test_probabilities_that_are_not_finite_write_nothing(project_root):
    task = fresh(project_root)
    probs = made(threshold.stage(task, "both"))
    (file,) = probs.path.glob("*.pt")
    values = probs.rows("probs", 0, IMAGES).clone()
    values[3, 2] = torch.nan
    file.unlink()
    probs.save(0, IMAGES, probs=values, **Columns.of(task.prompts).saved())
    with refused(Damaged, "probabilities", "nothing is written"):
        submit(fresh(project_root), "both")
    assert not (project_root / "submissions").exists()


def test_an_odd_histogram_is_a_loud_warning(capsys):
    suspicions.warn_of_odd_histogram({"a": 10, "b": 10, "c": 9})
    assert capsys.readouterr().err == ""
    suspicions.warn_of_odd_histogram({"a": 20, "b": 9, "c": 0})
    said = capsys.readouterr().err
    assert "CHECK BEFORE UPLOADING: never predicted: ['c']; more than half of the images are 'a'" in said
    assert "b                               9  ############" in said


def wrong(text: str, how: str) -> str:
    lines = text.splitlines()
    changed = {
        "header": ["id,label", *lines[1:]],
        "row lost": lines[:5] + lines[6:],
        "row twice": [*lines, lines[3]],
        "label out of range": [*lines[:3], "2,3", *lines[4:]],
        "no label": [*lines[:3], "2,", *lines[4:]],
        "rows swapped": [*lines[:3], lines[4], lines[3], *lines[5:]],
        "column lost": [*lines[:3], "2", *lines[4:]],
    }
    return "\n".join(changed[how]) + "\n"


@pytest.mark.parametrize(
    "how", ["header", "row lost", "row twice", "label out of range", "no label", "rows swapped", "column lost"]
)
def test_check_finds(task, how):
    text = CsvFormat(task).text([0, 1, 2] * 7 + [1, 1])
    CsvFormat(task).check(text)
    with pytest.raises(UserError, match="^submission: "):
        CsvFormat(task).check(wrong(text, how))


NAMES = st.lists(st.text(min_size=1, max_size=8).filter(str.isprintable), min_size=3, max_size=3, unique=True)


@given(NAMES)
def test_any_class_names_come_back_from_the_csv(tmp_path_factory, names):
    from pipeline.core.tables import csv_text, parse_csv

    text = csv_text(["id", "label"], [[str(n), name] for n, name in enumerate(names)])
    assert parse_csv(text, "x") == (["id", "label"], [[str(n), name] for n, name in enumerate(names)])


def test_how_it_was_made(project_root):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *arguments], cwd=project_root, check=True)

    git("init", "-q")
    git("add", "competitions")
    git("commit", "-qm", "x")
    path = submit(fresh(project_root), "both")
    made = json.loads(path.with_suffix(".json").read_text())
    assert made["refinement"] == []
    assert made["recipe"] == {
        "name": "both",
        "members": {"vit@tiny": 0.5, "vit2@tiny-sharp": 0.5},
        "blend": "prompts",
        "space": "probability",
        "weights": "given",
        "match": "none",
        "threshold": 0.002,
        "pooling": "mean",
        "prompt_weights": "given",
        "refine": [],
        "guards": True,
        "witness": None,
    }
    task = fresh(project_root)
    assert made["prompts"] == {"count": 12, "digest": task.prompts.digest}
    assert made["images"] == {"count": IMAGES, "digest": task.images_digest()}
    assert made["digest"] == threshold.stage(task, "both").digest
    member = made["members"]["vit2@tiny-sharp"]
    assert member["preprocess"] == {"size": 32, "ops": [["resize", "squash"], ["sharpen", 2.3]]}
    assert set(member["checkpoint"]["contents"]) == {"open_clip_config.json", "open_clip_model.safetensors"}
    assert made["uses"] == ["image"]
    assert sum(made["histogram"].values()) == IMAGES
    assert made["versions"]["torch"] == torch.__version__
    assert made["git"]["dirty"] is False
    assert len(made["git"]["commit"]) == 40


def test_the_demos_form_of_accuracy(project_root, command):
    table = rows(submit(fresh(project_root), "both"))
    (project_root / "solution.csv").write_text("\n".join(",".join(row) for row in [table[0], *table[1:-3]]) + "\n")
    competition(project_root, solution="solution.csv")
    with refused(Mismatch, "solution.csv"):
        submit(fresh(project_root), "both")
    changed = [*table[:-3], *([i, str((int(label) + 1) % 3)] for i, label in table[-3:])]
    (project_root / "solution.csv").write_text("\n".join(",".join(row) for row in changed) + "\n")
    result = command(project_root, "submit", "--competition", "tiny")
    assert f"accuracy {(IMAGES - 3) / IMAGES:.4f}" in result.stdout
