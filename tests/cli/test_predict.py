"""make predict: a folder of images into a CSV or JSON lines."""

import csv
import json

import pytest

from pipeline import load_classifier
from pipeline.cli import predict
from pipeline.core.errors import Damaged, Exists, NotFound, UserError

from ..conftest import IMAGES, failed, fresh, pipeline, refused

LABELS = "cat,dog,big bird"


def run(root, out="out.csv", images="data/tiny", labels=LABELS, template=None, top=2, **settings):
    return predict.predict(fresh(root, **settings), "vit", images, labels, template, top, out)


def test_csv_holds_what_the_classifier_says_in_natural_order(project_root, capsys):
    path = run(project_root, batch_size=5)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"{n}.jpg" for n in range(IMAGES) for _ in range(2)]
    classifier = load_classifier("vit", root=project_root, dtype="fp32")
    for n in (0, 10, IMAGES - 1):
        expected = classifier(project_root / "data" / "tiny" / f"{n}.jpg", LABELS.split(","), top_k=2)
        own = [row for row in rows if row["image"] == f"{n}.jpg"]
        assert [(row["rank"], row["label"]) for row in own] == [
            ("1", expected[0]["label"]),
            ("2", expected[1]["label"]),
        ]
        assert [float(row["score"]) for row in own] == pytest.approx([one["score"] for one in expected], rel=1e-3)
    said = capsys.readouterr().out
    assert f"... {IMAGES - 10} more" in said
    assert f"{IMAGES} images, 3 labels" in said


def test_json_lines(project_root):
    lines = [json.loads(line) for line in run(project_root, "out.jsonl", top=3, template="{}").read_text().splitlines()]
    assert [line["image"] for line in lines] == [f"{n}.jpg" for n in range(IMAGES)]
    assert all(sum(one["score"] for one in line["labels"]) == pytest.approx(1, abs=1e-4) for line in lines)


def test_damaged_images_are_told_and_the_others_kept(project_root):
    (project_root / "data" / "tiny" / "4.jpg").write_bytes(b"damaged")
    result = pipeline(project_root, "predict", "--model", "vit", "--images", "data/tiny", "--labels", LABELS)
    failed(result, f"1 of {IMAGES} images", "results.csv: 4.jpg")
    with open(project_root / "results.csv", newline="") as file:
        names = {row["image"] for row in csv.DictReader(file)}
    assert names == {f"{n}.jpg" for n in range(IMAGES) if n != 4}


def test_nothing_is_overwritten(project_root):
    before = run(project_root).read_bytes()
    with refused(Exists, "OUT=out.csv"):
        run(project_root, labels="x,y")
    assert (project_root / "out.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "kind", "parts"),
    [
        ({"out": "out.txt"}, UserError, ["OUT=out.txt", ".csv or .jsonl"]),
        ({"labels": "a"}, UserError, ["LABELS=a"]),
        ({"labels": "none.json"}, NotFound, ["LABELS=none.json"]),
        ({"images": "nowhere"}, NotFound, ["IMAGES", "nowhere"]),
        ({"template": "a photo"}, UserError, ["'a photo'", "{}"]),
    ],
)
def test_mistakes_write_nothing(project_root, arguments, kind, parts):
    with refused(kind, *parts):
        run(project_root, **arguments)
    assert not list(project_root.glob("out.*"))


def test_a_folder_of_damaged_images_writes_nothing(project_root):
    (project_root / "bad").mkdir()
    (project_root / "bad" / "a.jpg").write_bytes(b"x")
    with refused(Damaged, "IMAGES=bad", "1 images"):
        run(project_root, images="bad")
    assert not (project_root / "out.csv").exists()


def test_a_model_is_needed(project_root):
    result = pipeline(project_root, "predict", "--images", "data/tiny", "--labels", LABELS)
    failed(result, "MODEL=name. Known: vit, vit2.")
