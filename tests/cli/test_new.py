"""What a new user meets first: a sample submission, sub-folders, images that moved, the file a mistake is in."""

import shutil

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.chain.main_job import submit
from pipeline.chain.task import CompetitionTask
from pipeline.cli import new
from pipeline.core.errors import Mismatch, NotFound, UserError
from pipeline.recipes import Project

from ..conftest import refused, write_images, write_yaml


@pytest.fixture
def root(project_root, monkeypatch):
    monkeypatch.chdir(project_root)
    write_images(project_root / "data" / "mine", 4)
    return project_root


def written(root) -> dict:
    return yaml.safe_load((root / "competitions" / "mine.yaml").read_text())


@pytest.mark.parametrize(
    ("header", "rows", "columns"),
    [
        ("image,target", ["0.jpg,0", "1.jpg,0", "2.jpg,0", "3.jpg,0"], {"image": "file_name", "target": "label"}),
        ("id,label", ["3,cat", "1,cat", "0,cat", "2,cat"], {"id": "stem", "label": "class_name"}),
        ("class,file", ["x,0.jpg", "x,2.jpg", "x,1.jpg", "x,3.jpg"], {"class": "label", "file": "file_name"}),
    ],
)
def test_columns_and_ids_are_the_samples(root, header, rows, columns):
    (root / "sample.csv").write_text("\n".join([header, *rows]) + "\n")
    new.write(Project(root), "mine", "data/mine", "cat,dog", "sample.csv")
    assert (written(root)["columns"], written(root)["sample_submission"]) == (columns, "sample.csv")
    write_yaml(root / "ensembles" / "mine.yaml", {"members": {"vit": 1}})
    lines = submit(CompetitionTask(Project(root), "mine", dtype_name="fp32"), "mine").read_text().splitlines()
    ids = [
        row.split(",")[list(columns).index(next(c for c, v in columns.items() if v in ("file_name", "stem")))]
        for row in rows
    ]
    at = 0 if header.split(",")[0] in ("image", "id") else 1
    assert lines[0] == header and [line.split(",")[at] for line in lines[1:]] == ids


@pytest.mark.parametrize(
    ("header", "answer", "columns", "top"),
    [
        ("id,cat,dog", "0.5,0.5", {"id": "stem", "{class_name}": "probability"}, None),
        ("id,c0,c1", "0.5,0.5", {"id": "stem", "c{label}": "probability"}, None),
        ("id,label", "dog cat", {"id": "stem", "label": "class_name"}, 2),
        ("id,label", "1 0", {"id": "stem", "label": "label"}, 2),
        ("id,label", "hot dog", {"id": "stem", "label": "label"}, None),
    ],
)
def test_a_sample_with_probabilities_or_several_labels(root, header, answer, columns, top):
    (root / "sample.csv").write_text("\n".join([header, *(f"{n},{answer}" for n in (2, 0, 1, 3))]) + "\n")
    new.write(Project(root), "mine", "data/mine", "cat,dog", "sample.csv")
    assert (written(root)["columns"], written(root).get("top")) == (columns, top)
    write_yaml(root / "ensembles" / "mine.yaml", {"members": {"vit": 1}})
    lines = submit(CompetitionTask(Project(root), "mine", dtype_name="fp32"), "mine").read_text().splitlines()
    assert lines[0] == header and [line.split(",")[0] for line in lines[1:]] == ["2", "0", "1", "3"]


@pytest.mark.parametrize(("header", "part"), [("id,dog,cat", "the order of CLASSES"), ("id,a,b", "none is a class's")])
def test_columns_that_are_no_classes(root, header, part):
    (root / "sample.csv").write_text("\n".join([header, *(f"{n},0.5,0.5" for n in range(4))]) + "\n")
    with refused(Mismatch, "SAMPLE=", part):
        new.write(Project(root), "mine", "data/mine", "cat,dog", "sample.csv")


def test_ids_that_are_paths(root):
    write_images(root / "data" / "mine" / "deep", 3)
    (root / "sample.csv").write_text(
        "id,label\n" + "".join(f"{n},0\n" for n in ["deep/0.jpg", "deep/1.jpg", "deep/2.jpg"])
    )
    new.write(Project(root), "mine", "data/mine/**/deep/*.jpg", "cat,dog", "sample.csv")
    assert written(root)["columns"] == {"id": "path", "label": "label"}


def test_a_sample_of_other_images(root):
    (root / "sample.csv").write_text("id,label\na.jpg,0\n")
    with pytest.raises(
        Mismatch, match=r"SAMPLE=.*sample.csv: 1 rows, first \['a.jpg', '0'\], and 4 images, first '0.jpg'"
    ):
        new.write(Project(root), "mine", "data/mine", "cat,dog", "sample.csv")
    assert not (root / "competitions" / "mine.yaml").exists()


def test_it_begins_with_the_best_model_that_is_on_disk(root, capsys):
    assert new._first_member(Project(root))[0] in ("vit@tiny", "vit2@tiny-sharp")
    entries = yaml.safe_load((root / "models.yaml").read_text())
    entries["vit2"] |= {"imagenet": 50}
    entries["absent"] = {"family": "open_clip", "weights": "nowhere", "imagenet": 90, "preprocess": "tiny"}
    write_yaml(root / "models.yaml", entries)
    new.write(Project(root), "mine", "data/mine", "cat,dog")
    assert "vit2@tiny-sharp: 1" in (root / "ensembles" / "mine.yaml").read_text()
    said = capsys.readouterr().out
    assert "vit2@tiny-sharp, which is on disk" in said and said.splitlines()[-1].startswith("next: ")


def test_undo_removes_what_nobody_changed(root, capsys):
    before = sorted(root.rglob("*.yaml"))
    assert main(["new", "COMPETITION=mine", "IMAGES=data/mine", "CLASSES=cat,dog"]) == 0
    assert main(["new", "COMPETITION=mine", "UNDO=1"]) == 0
    assert sorted(root.rglob("*.yaml")) == before and not (root / "prompts" / "mine").exists()
    with pytest.raises(NotFound, match="nothing is known of competition 'mine'"):
        new.undo(Project(root), "mine")
    new.write(Project(root), "mine", "data/mine", "cat,dog")
    (root / "prompts" / "mine" / "cat.yaml").write_text("name: a cat of mine\n")
    capsys.readouterr()
    new.undo(Project(root), "mine")
    assert "changed since, and kept: prompts/mine/cat.yaml" in capsys.readouterr().out
    assert [path.name for path in (root / "prompts" / "mine").iterdir()] == ["cat.yaml"]
    with pytest.raises(UserError, match="give IMAGES=folder and CLASSES"):
        from pipeline.cli._options import parse

        args = parse(["new", "COMPETITION=mine"])
        new.run(CompetitionTask(Project(root), "mine"), args)


def test_images_in_sub_folders_are_told(root, capsys):
    write_images(root / "data" / "mine" / "more", 5)
    said = "5 more images are in sub-folders of data/mine and are not used; for all give data/mine/**/*"
    new.write(Project(root), "mine", "data/mine", "cat,dog")
    assert said in capsys.readouterr().err
    main(["predict", "MODEL=vit", "IMAGES=data/mine", "LABELS=cat,dog"])
    assert said in capsys.readouterr().err


def test_a_competition_remembers_where_its_images_were(root, capsys):
    """What DATA named is found again where the recipe's own folder is not there; not for one that it says since."""
    shutil.move(root / "data" / "tiny", root / "elsewhere")
    with pytest.raises(NotFound, match="no image folder"):
        submit(CompetitionTask(Project(root), "tiny", dtype_name="fp32"), "one")
    submit(CompetitionTask(Project(root), "tiny", dtype_name="fp32", data="elsewhere"), "one")
    capsys.readouterr()
    assert main(["sheet", "COMPETITION=tiny"]) == 0
    assert "data/tiny is not there; the images of DATA=elsewhere are used" in capsys.readouterr().err
    recipe = yaml.safe_load((root / "competitions" / "tiny.yaml").read_text())
    write_yaml(root / "competitions" / "tiny.yaml", {**recipe, "images": "data/tinny"})
    with refused(NotFound, "data/tinny"):
        submit(CompetitionTask(Project(root), "tiny", dtype_name="fp32"), "one")
    write_yaml(root / "competitions" / "tiny.yaml", recipe)
    shutil.copytree(root / "elsewhere", root / "data" / "tiny")
    assert CompetitionTask(Project(root), "tiny").source == "data/tiny"


@pytest.mark.parametrize("wrong", [{"family": "open_clop"}, {"allow": ["men"]}, {"weights": "nowhere"}, {"size": 48}])
def test_a_mistake_is_told_with_the_file_it_is_in(root, capsys, wrong):
    entry = yaml.safe_load((root / "models.yaml").read_text())["vit"]
    write_yaml(root / "models.local.yaml", {"mine": {**entry, **wrong}})
    assert main(["infer", "COMPETITION=tiny", "MODEL=mine", "DTYPE=fp32"]) == 1
    said = capsys.readouterr().err
    assert "models.local.yaml: mine" in said or ("size" in wrong and "mine@tiny" in said), said
