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
        ({"out": "out.txt"}, UserError, ["OUT=out.txt", ".csv, .jsonl, .parquet"]),
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


class TestParquet:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("pyarrow")

    def test_parts_hold_what_the_other_forms_do(self, project_root):
        from pyarrow import parquet

        lines = [json.loads(line) for line in run(project_root, "out.jsonl").read_text().splitlines()]
        folder = run(project_root, "out.parquet", shard_rows=10)
        assert sorted(path.name for path in folder.iterdir()) == [
            f"part-{start:010d}-{stop:010d}.parquet" for start, stop in ((0, 10), (10, 20), (20, IMAGES))
        ]
        found = parquet.read_table(folder).to_pylist()
        assert [one["id"] for one in found] == [line["image"] for line in lines]
        for one, line in zip(found, lines, strict=True):
            assert one["labels"] == [label["label"] for label in line["labels"]]
            assert one["scores"] == pytest.approx([label["score"] for label in line["labels"]], rel=1e-3)

    def test_a_stopped_run_is_gone_on_with(self, project_root, capsys):
        folder = run(project_root, "out.parquet", shard_rows=10)
        kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        content = {path: path.read_bytes() for path in kept}
        capsys.readouterr()
        lost = sorted(kept)[1]
        lost.unlink()
        run(project_root, "out.parquet", shard_rows=10)
        assert f"{IMAGES - 10} images are there, 10 are to do" in capsys.readouterr().out
        assert {path: path.read_bytes() for path in folder.iterdir()} == content
        assert all(path.stat().st_mtime_ns == kept[path] for path in kept if path != lost)
        with refused(Exists, "out.parquet"):
            run(project_root, "out.parquet", shard_rows=10)

    def test_two_questions_are_not_mixed(self, project_root):
        folder = run(project_root, "out.parquet", shard_rows=10)
        sorted(folder.iterdir())[0].unlink()
        with refused(Exists, "part-0000000010-0000000020.parquet"):
            run(project_root, "out.parquet", labels="x,y", shard_rows=10)
        (folder / "mine.txt").write_text("")
        with refused(Exists, "mine.txt"):
            run(project_root, "out.parquet", shard_rows=10)

    def test_another_size_of_parts_fills_what_is_missing(self, project_root):
        from pyarrow import parquet

        whole = parquet.read_table(run(project_root, "whole.parquet"))
        folder = run(project_root, "out.parquet", shard_rows=10)
        sorted(folder.iterdir())[1].unlink()
        run(project_root, "out.parquet", shard_rows=4)
        assert parquet.read_table(folder)["id"].to_pylist() == whole["id"].to_pylist()
        assert parquet.read_table(folder)["labels"] == whole["labels"]

    def test_damaged_images_are_named_also_by_the_run_that_finishes(self, project_root):
        (project_root / "data" / "tiny" / "4.jpg").write_bytes(b"damaged")
        with refused(Damaged, "4.jpg", f"1 of {IMAGES}"):
            run(project_root, "out.parquet", shard_rows=10)
        sorted((project_root / "out.parquet").iterdir())[2].unlink()
        with refused(Damaged, "4.jpg", f"1 of {IMAGES}"):
            run(project_root, "out.parquet", shard_rows=10)

    def test_labels_of_an_ensemble_are_those_of_its_submission(self, project_root, command):
        from pyarrow import parquet

        from pipeline.chain import classes

        given = ["export", "COMPETITION=tiny", "DTYPE=fp32", "SHARD=10"]
        result = command(project_root, *given, "ENSEMBLE=both")
        assert result.returncode == 0, result.stderr
        found, task = parquet.read_table(project_root / "both.parquet"), fresh(project_root)
        decision = classes.decide(task, "both")
        assert found["id"].to_pylist() == list(task.images.ids)
        assert [row[0] for row in found["labels"].to_pylist()] == [task.class_names[n] for n in decision.labels]
        best = decision.refined.sort(dim=1, descending=True).values
        assert found["scores"].to_pylist() == best.tolist() and len(found["labels"][0]) == len(task.class_names)
        failed(command(project_root, *given, "ENSEMBLE=both"), "both.parquet")
        failed(command(project_root, *given, "ENSEMBLE=one", "OUT=both.parquet"), "both.parquet", "another run")
        failed(command(project_root, *given), "MODEL=", "ENSEMBLE=")

    def test_features_are_exported_as_lists_of_one_size(self, project_root, command):
        import pyarrow
        from pyarrow import parquet

        from pipeline.chain import features

        result = command(project_root, "export", "COMPETITION=tiny", "MODEL=vit", "DTYPE=fp32", "OUT=f.parquet")
        assert result.returncode == 0, result.stderr
        found = parquet.read_table(project_root / "f.parquet")
        task = fresh(project_root)
        seen, new = features.of_member(task, task.project.member("vit"))
        assert new == 0 and found["id"].to_pylist() == list(task.images.ids)
        vectors = seen.rows("features", 0, IMAGES).float()
        assert found.schema.field("features").type == pyarrow.list_(pyarrow.float32(), vectors.shape[1])
        assert found["features"].to_pylist() == vectors.tolist()
        failed(
            command(project_root, "export", "COMPETITION=tiny", "MODEL=vit", "DTYPE=fp32", "OUT=f.parquet"), "f.parquet"
        )
