"""What a new user met: one line that names what was meant, and output that stays readable with many classes."""

import re

import pytest
import yaml
from matplotlib import font_manager
from PIL import Image, ImageFont

from pipeline.__main__ import main
from pipeline.chain import classes as chain_classes
from pipeline.chain import suspicions
from pipeline.chain.main_job import submit
from pipeline.cli import inspect, models
from pipeline.images.listing import ImageFiles
from pipeline.recipes import Project
from pipeline.report import sheet

from ..chain.test_submit import competition
from ..conftest import IMAGES, fresh, write_images, write_yaml
from .test_predict import LABELS


@pytest.fixture
def run(project_root, monkeypatch, capsys):
    monkeypatch.chdir(project_root)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(words)
        return status, *capsys.readouterr()

    return run


def test_inspect_follows_digests_and_no_names_of_stages(project_root, capsys):
    submit(fresh(project_root), "both")
    (project_root / "cache" / "datasets" / "pets" / "probs" / "x").mkdir(parents=True)  # a folder called as a stage
    (file,) = (project_root / "cache" / "tiny" / "probs" / "vit@tiny").glob("*/*.pt")
    capsys.readouterr()
    inspect.show(file, project_root)
    said = capsys.readouterr().out.splitlines()
    line = next(n for n, text in enumerate(said) if 'stage: "probs"' in text)
    assert not said[line + 1].strip().startswith("=")
    assert any("= " in text and "features" in text for text in said)


def test_a_second_prediction_gets_a_file_of_its_own(project_root, run):
    asked = ["predict", "MODEL=vit", "IMAGES=data/tiny", f"LABELS={LABELS}"]
    assert run(*asked)[0] == run(*asked)[0] == 0
    first, second = (project_root / name for name in ("results.csv", "results-2.csv"))
    assert first.read_bytes() == second.read_bytes()
    status, _, error = run(*asked, "OUT=results.csv")
    assert status == 1 and "already there" in error


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere", "IMAGES: no image folder nowhere. Put the images there or say where: IMAGES=path"),
        ("data/tiny/0.jpg", "IMAGES: data/tiny/0.jpg is a file; give the folder"),
    ],
)
def test_where_images_are_is_told_of_the_variable_that_was_given(run, images, message):
    for words in (["predict", "MODEL=vit", f"LABELS={LABELS}"], ["new", "COMPETITION=x", "CLASSES=a,b"]):
        status, _, error = run(*words, f"IMAGES={images}")
        assert status == 1 and message in error.replace("./", "")


def test_a_tab_is_called_a_tab(project_root, run):
    (project_root / "ensembles" / "t.yaml").write_text("members:\n\tvit: 1\n")
    status, _, error = run("submit", "COMPETITION=tiny", "ENSEMBLE=t")
    assert status == 1 and "line 2: a tab; indent with spaces" in error


@pytest.mark.parametrize("verb", ["infer", "submit", "plan"])
def test_an_unknown_family_is_told_before_anything_is_announced(project_root, run, verb):
    entries = yaml.safe_load((project_root / "models.yaml").read_text())
    entries["vit"]["family"] = "open_clop"
    write_yaml(project_root / "models.yaml", entries)
    status, said, error = run(verb, "COMPETITION=tiny", "MODEL=vit")
    assert (status, said) == (1, "")
    assert "open_clop" in error and "open_clip" in error


def test_images_without_a_picture_are_no_ties(project_root, run):
    labels = chain_classes.decide(fresh(project_root), "both").labels
    kept = {labels.index(label) for label in list(dict.fromkeys(labels))[:2]}
    assert len(kept) == 2
    for row in set(range(IMAGES)) - kept:
        (project_root / "data" / "tiny" / f"{row}.jpg").write_bytes(b"damaged")
    competition(project_root, damaged_images="fallback")
    _, _, error = run("submit", "COMPETITION=tiny", "DTYPE=fp32")
    assert "damaged" in error or "picture" in error
    assert "equal probability" not in error


class TestManyClasses:
    def test_a_warning_stays_on_a_screen(self, capsys):
        suspicions.warn_of_odd_histogram({f"class number {n}": n % 2 * n for n in range(300)})
        said = capsys.readouterr().err
        assert len(said.splitlines()) < 30 and max(map(len, said.splitlines())) < 800
        assert "class number 299 " in said, "the commonest are shown"

    def test_new_lists_some_files_and_counts_the_others(self, project_root, run):
        names = ",".join(f"class {n}" for n in range(200))
        status, said, _ = run("new", "COMPETITION=many", "IMAGES=data/tiny", f"CLASSES={names}")
        assert status == 0 and len(said.splitlines()) < 25
        assert len(list((project_root / "prompts" / "many").iterdir())) == 201
        assert "wrote 183 more" in said

    def test_a_sheet_can_be_opened(self, tmp_path):
        write_images(tmp_path, 1)
        rows, images = [(f"Größe {n}: 30", [0] * 30) for n in range(200)], ImageFiles.of(tmp_path, ["0.jpg"])
        drawn = sheet._draw(rows, images)
        assert max(drawn.size) < 8000
        few = sheet._draw(rows[:3], images)
        assert few.size == (12 * 96, 3 * (96 + 18))


@pytest.mark.parametrize("text", ["äöüßéñ", "Грибы", "κόσμε", "قطة"])
def test_a_sheet_draws_letters_beyond_ascii(text):
    font = sheet._font(text, 13)
    boxes = {bytes(font.getmask(letter)) for letter in set(text)}
    assert len(boxes) == len(set(text)), "one box for all would be no letters"
    assert sheet._no_font_draws(text) == ""


def test_a_sheet_takes_the_font_that_has_the_letters_and_says_which_none_has(project_root, run, monkeypatch):
    serif, mono = (ImageFont.truetype(font_manager.findfont(name), 13) for name in ("DejaVu Sans", "cmtt10"))
    monkeypatch.setattr(sheet, "_fonts", lambda size: [mono, serif])
    assert (sheet._font("Грибы", 13), sheet._font("abc", 13)) == (serif, mono)
    assert sheet._no_font_draws("Ж\U00012000a") == "\U00012000"
    (project_root / "data" / "tiny" / "0.jpg").rename(project_root / "data" / "tiny" / "\U00012000.jpg")
    recipe = yaml.safe_load((project_root / "competitions" / "tiny.yaml").read_text())
    write_yaml(project_root / "competitions" / "tiny.yaml", {**recipe, "columns": {"id": "stem", "label": "label"}})
    submit(fresh(project_root), "one")
    status, _, warned = run("sheet", "COMPETITION=tiny")
    assert status == 0 and "no font here has the letters \U00012000" in warned


def test_a_sheet_is_of_the_newest(project_root, run):
    assert run("sheet", "COMPETITION=tiny")[0] == 1
    submit(fresh(project_root), "both")
    submit(fresh(project_root), "one")
    status, said, _ = run("sheet", "COMPETITION=tiny")
    assert status == 0 and "sheet-002.jpg" in said
    assert Image.open(project_root / "cache" / "tiny" / "sheet-002.jpg").format == "JPEG"


class TestPlan:
    def test_loading_counts(self, project_root, run):
        assert run("plan", "COMPETITION=tiny", "DTYPE=fp32")[0] == 0
        _, said, _ = run("plan", "COMPETITION=tiny", "DTYPE=fp32")
        (line,) = [line for line in said.splitlines() if line.startswith("about")]
        assert float(re.search(r"about ([\d.]+) s", line)[1]) > 0
        assert [line.split()[-1] for line in said.splitlines() if "vit prompts" in line] == ["s"]

    def test_downloads_are_summed_up(self, project_root, run, monkeypatch):
        entries = yaml.safe_load((project_root / "models.yaml").read_text())
        for name, size in (("far", 3.0), ("farther", 44.0)):
            entries[name] = {
                "family": "open_clip", "architecture": "ViT-B-32", "hub": f"someone/{name}", "preprocess": "tiny",
                "download_gb": size,
            }  # fmt: skip
        write_yaml(project_root / "models.yaml", entries)
        write_yaml(project_root / "ensembles" / "far.yaml", {"members": {"far": 1, "farther": 1, "vit": 1}})
        status, said, error = run("plan", "COMPETITION=tiny", "ENSEMBLE=far")
        assert status == 0, error
        assert "47.0 GB to download: 2 models" in said
        assert re.search(r"about [\d.]+ s on cpu, \w+, and what is unknown", " ".join(said.split()))

    def test_where_all_is_unknown_no_sum_is_told(self, project_root, run):
        entries = yaml.safe_load((project_root / "models.yaml").read_text())
        entries["far"] = {
            "family": "open_clip", "architecture": "ViT-B-32", "hub": "someone/far", "preprocess": "tiny",
        }  # fmt: skip
        write_yaml(project_root / "models.yaml", entries)
        write_yaml(project_root / "ensembles" / "far.yaml", {"members": {"far": 1}})
        assert run("preprocess", "COMPETITION=tiny", "PREPROCESS=tiny")[0] == 0
        status, said, error = run("plan", "COMPETITION=tiny", "ENSEMBLE=far")
        assert status == 0, error
        assert "how long it takes on cpu, " in said
        assert "about" not in said

    def test_a_size_that_is_not_stated_is_estimated(self, project_root):
        entry = Project(project_root).models["vit"]
        known = entry.model_copy(update={"weights": None, "hub": "a/b", "parameters": 1000.0, "download_gb": None})
        assert models.hub.download_gb(known) == 4.0
        assert models.weights_state(known, Project(project_root)) == "to download ~4 GB"
