"""new, inspect, clean-cache, and the command line's manners."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from pipeline.chain import probs as chain_probs
from pipeline.chain.main_job import submit
from pipeline.chain.task import CompetitionTask
from pipeline.cli import clean_cache, inspect, new, plan
from pipeline.core.errors import Damaged, Exists, NotFound, UserError
from pipeline.recipes import Project
from pipeline.report import sheet

from ..conftest import ROOT, failed, fresh, pipeline, refused, write_images, write_yaml


class TestNew:
    def test_what_it_writes_works(self, project_root):
        write_images(project_root / "data" / "mine", 4)
        result = pipeline(
            project_root, "new", "--competition", "mine", "--images", "data/mine", "--classes", "Red Fox,Owl: big,yes"
        )
        assert result.returncode == 0, result.stderr
        assert "4 images, 3 classes, 15 prompts" in result.stdout
        entries = yaml.safe_load((project_root / "models.yaml").read_text())
        write_yaml(project_root / "ensembles" / "mine.yaml", {"members": {"vit": 1}})
        assert entries
        assert pipeline(project_root, "submit", "--competition", "mine").returncode == 0
        assert (project_root / "submissions" / "mine" / "001-mine.csv").read_text().startswith("id,label\n0.jpg,")
        assert Project(project_root).class_names("mine") == ("Red Fox", "Owl: big", "yes")

    def test_a_name_with_a_comma_stands_in_quotes(self, tmp_path):
        assert new.names_from(tmp_path, 'sea, "big, bird",owl', "LABELS") == ["sea", "big, bird", "owl"]

    def test_nothing_is_overwritten(self, project_root):
        before = (project_root / "competitions" / "tiny.yaml").read_text()
        with refused(Exists, "competitions/tiny.yaml"):
            new.write(Project(project_root), "tiny", "data/tiny", "a,b")
        assert (project_root / "competitions" / "tiny.yaml").read_text() == before
        assert not (project_root / "prompts" / "tiny" / "a.yaml").exists()

    @pytest.mark.parametrize(
        ("name", "images", "classes", "kind", "parts"),
        [
            ("x", "nowhere", "a,b", NotFound, ["IMAGES", "nowhere"]),
            ("x", "data/tiny", "a", UserError, ["CLASSES=a"]),
            ("x", "data/tiny", "a!,a?", UserError, ["CLASSES", "['a']"]),
            ("../x", "data/tiny", "a,b", UserError, ["'../x'"]),
            ("x", "data/tiny", "none.json", NotFound, ["CLASSES=none.json"]),
            ("x", "data/tiny", "a,,b", UserError, ["CLASSES=a,,b: an empty name"]),
            ("x", "data/tiny", "a,b,a", UserError, ["CLASSES", "['a']"]),
        ],
    )
    def test_mistakes(self, project_root, name, images, classes, kind, parts):
        with refused(kind, *parts):
            new.write(Project(project_root), name, images, classes)


@pytest.mark.parametrize(("size", "advised"), [((300, 260), True), ((120, 100), False)])
def test_plan_says_where_draft_would_pay(project_root, capsys, size, advised):
    """At a quarter of 260 pixels twice the 32 of the recipe remain; at half of 100 they do not."""
    for path in (project_root / "data" / "tiny").glob("*.jpg"):
        Image.new("RGB", size).save(path)
    advice = "preprocess/tiny.yaml: with 'draft: true' decoding takes"
    plan.show(fresh(project_root), "one")
    assert (advice in " ".join(capsys.readouterr().out.split())) == advised
    write_yaml(project_root / "preprocess" / "tiny.yaml", {"size": 32, "ops": [{"resize": "squash"}], "draft": True})
    plan.show(fresh(project_root), "one")
    assert advice not in " ".join(capsys.readouterr().out.split())


def test_plan_tells_what_is_cached_and_computes_nothing(project_root, capsys):
    task = fresh(project_root)
    chain_probs.of_member(task, task.project.member("vit@tiny"))
    before = set((project_root / "cache").rglob("*.pt"))
    capsys.readouterr()
    plan.show(fresh(project_root), "both")
    said = [line for line in capsys.readouterr().out.splitlines() if "probabilities" not in line]
    lines = {" ".join(line.split()[:2]): line.split() for line in said}
    assert lines["infer vit@tiny"][2:5] == ["23", "0", "images"]
    assert lines["preprocess tiny-sharp"][2:5] == ["0", "23", "images"]
    assert lines["infer vit2@tiny-sharp"][2:5] == ["0", "23", "images"]
    assert lines["threshold both"][2:5] == ["0", "23", "images"]
    assert "on cpu, fp32" in " ".join(next(words for key, words in lines.items() if key.startswith("about")))
    assert set((project_root / "cache").rglob("*.pt")) == before


def test_inspect_shows_the_way_back_to_the_recipes(project_root, capsys):
    submit(fresh(project_root), "both")
    (file,) = (project_root / "cache" / "tiny" / "threshold" / "both").glob("*/*.pt")
    capsys.readouterr()
    inspect.show(file, project_root)
    said = capsys.readouterr().out
    assert "probs          float32 (23, 12)" in said
    assert "class_names    list of 3: Cats, Dogs, Big Birds" in said
    for part in ('"sharpen", 2.3', "cache/tiny/features/vit@tiny", "cache/text/vit2", '"threshold": '):
        assert part.replace('"threshold": ', "threshold: 0.002") in said
    inspect.show(file.parent, project_root)
    with refused(NotFound, "none.pt"):
        inspect.show(project_root / "none.pt", project_root)
    with refused(Damaged, "models.yaml"):
        inspect.show(project_root / "models.yaml", project_root)


def test_sheet_shows_every_class(project_root):
    from PIL import Image

    submit(fresh(project_root), "both")
    target = sheet.draw(fresh(project_root), 1)
    assert Image.open(target).size == (12 * 96, 3 * (96 + 18))


class TestCleanCache:
    def files(self, root) -> set:
        return set((root / "cache").rglob("*.pt"))

    def test_what_recipes_use_stays_and_the_rest_goes(self, project_root, capsys):
        submit(fresh(project_root), "both")
        current = self.files(project_root)
        original = (project_root / "prompts" / "tiny" / "cats.yaml").read_text()
        write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {})
        write_yaml(project_root / "preprocess" / "other.yaml", {"size": 32, "ops": ["resize", "equalize"]})
        submit(fresh(project_root), "both")
        chain_probs.of_member(fresh(project_root), fresh(project_root).project.member("vit@other"))
        (project_root / "prompts" / "tiny" / "cats.yaml").write_text(original)
        chain_probs.of_member(fresh(project_root), fresh(project_root).project.member("vit@other"))
        with_other = self.files(project_root)
        clean_cache.clean(Project(project_root), dry=True)
        assert self.files(project_root) == with_other
        clean_cache.clean(Project(project_root))
        assert "MB removed" in capsys.readouterr().out
        kept = self.files(project_root)
        assert current < kept < with_other
        assert any("vit@other" in str(path) and "features" in str(path) for path in kept), "its recipe is current"
        (project_root / "preprocess" / "other.yaml").unlink()
        clean_cache.clean(Project(project_root))
        assert self.files(project_root) == current

    def test_image_only_models_are_no_obstacle(self, project_root):
        entries = yaml.safe_load((project_root / "models.yaml").read_text())
        entries["images-only"] = {"family": "timm", "architecture": "resnet101", "hub": "x/y", "preprocess": "tiny"}
        write_yaml(project_root / "models.yaml", entries)
        submit(fresh(project_root), "both")
        before = self.files(project_root)
        clean_cache.clean(Project(project_root))
        assert self.files(project_root) == before

    def test_a_competition_whose_images_are_away_is_kept(self, project_root):
        submit(fresh(project_root), "both")
        (project_root / "data" / "tiny").rename(project_root / "away")
        before = self.files(project_root)
        clean_cache.clean(Project(project_root))
        assert self.files(project_root) == before

    def test_results_of_another_data_folder_are_kept(self, project_root):
        write_images(project_root / "elsewhere", 3, seed=5)
        submit(fresh(project_root, data="elsewhere"), "both")
        before = self.files(project_root)
        clean_cache.clean(Project(project_root))
        assert self.files(project_root) == before

    def test_leftovers_of_killed_runs_go(self, project_root):
        submit(fresh(project_root), "both")
        old, young = (project_root / "cache" / "tiny" / "images" / f".{name}.pt.x.tmp" for name in ("old", "young"))
        for path in (old, young):
            path.write_bytes(b"x")
        os.utime(old, (0, 0))
        clean_cache.clean(Project(project_root))
        assert not old.exists()
        assert young.exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["submit", "--competition", "tinny"], ["competitions/tinny.yaml", "Did you mean 'tiny'?"]),
        (["submit", "--competition", "tiny", "--ensemble", "bth"], ["ensembles/bth.yaml", "Did you mean 'both'?"]),
        (["infer", "--competition", "tiny", "--model", "vit3"], ["'vit3'", "Did you mean 'vit'?"]),
        (["preprocess", "--competition", "tiny", "--preprocess", "x"], ["preprocess/x.yaml", "tiny, tiny-sharp"]),
        (["submit", "--competition", "tiny", "--data", "none"], ["DATA: no image folder none"]),
        (["submit", "--competition", "tiny", "--device", "cuda:77"], ["DEVICE=cuda:77"]),
        (["submit", "--competition", "tiny", "--device", "gpu"], ["DEVICE=gpu"]),
        (["inspect", "--file", "nothing.pt"], ["nothing.pt"]),
        (["diff", "--competition", "tiny", "--a", "1", "--b", "2"], ["submission 1"]),
    ],
)
def test_mistakes_are_one_line_and_exit_code_1(project_root, arguments, parts):
    result = pipeline(project_root, *arguments)
    failed(result, *parts)
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_outside_a_project(tmp_path):
    result = pipeline(tmp_path, "submit")
    failed(result, "competitions/demo.yaml", f"none in {tmp_path}", "run from the project's folder")


def test_a_model_that_is_not_on_disk_says_what_would_be_downloaded(project_root, command, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    shutil.copy(ROOT / "models.yaml", project_root / "models.yaml")
    shutil.copy(ROOT / "preprocess" / "crop224.yaml", project_root / "preprocess" / "crop224.yaml")
    for model, parts in {
        "openai-b32": ["timm/vit_base_patch32_clip_224.openai", "0.6 GB"],
        "dfn2b-b16": ["apple/DFN2B-CLIP-ViT-B-16"],
    }.items():
        result = command(project_root, "infer", "--competition", "tiny", "--model", model)
        failed(result, *parts, "models.local.yaml")


def make(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = ["make", *arguments, f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, **options)


class TestMake:
    def test_alone_it_prints_targets_and_variables(self):
        said = make("COMPETITION=scene").stdout
        targets = (
            "preprocess infer ensemble threshold submit plan log score diff sheet report "
            "analyse predict new inspect clean-cache test bench help"
        )
        for target in targets.split():
            assert f"make {target}" in said
        assert "COMPETITION  scene" in said
        assert "DEVICE       auto" in said

    def test_a_misspelled_variable_is_not_ignored(self):
        result = make("log", "COMPETITON=scene")
        assert result.returncode != 0
        assert "no variable 'COMPETITON'. Did you mean 'COMPETITION'?" in result.stderr

    def test_a_wrong_value_is_one_line_about_the_variable(self):
        result = make("submit", "BATCH=abc")
        assert result.returncode != 0
        assert "error: BATCH (--batch): 'abc' is not a positive whole number" in result.stderr
        assert "usage" not in result.stderr

    def test_values_are_data_not_shell(self, tmp_path):
        result = make("log", f"COMPETITION=x'; touch {tmp_path}/hacked; '")
        assert result.returncode != 0
        assert "is no recipe name" in result.stderr
        assert not (tmp_path / "hacked").exists()

    def test_a_missing_argument_is_named(self):
        assert "give N=..., e.g. make score N=12 PUBLIC=0.92024" in make("score", "PUBLIC=1").stderr

    def test_the_environment_at_hand_is_checked(self, tmp_path):
        assert make("log").returncode == 0
        result = subprocess.run(
            [sys.executable, "-S", "tools/environment.py"], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 1
        assert "missing: torch==" in result.stderr
        assert "pip install torch==" in result.stderr


def test_every_module_says_what_it_is():
    for path in (ROOT / "pipeline").rglob("*.py"):
        assert path.read_text().startswith('"""'), path


def test_auto_means_all_gpus_unless_a_launcher_gave_one(project_root, monkeypatch):
    """No GPU is here: only which of them would be meant is tested."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert CompetitionTask(Project(project_root), "tiny").device == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert CompetitionTask(Project(project_root), "tiny").device == torch.device("cuda:1")


def test_every_job_option_reaches_the_job(project_root):
    task = CompetitionTask(
        Project(project_root),
        "tiny",
        data="data",
        device_name="cpu",
        dtype_name="bf16",
        batch_size=7,
        workers=3,
        shard_rows=99,
    )
    assert (task.dtype, task.batch, task.threads, task.shard_rows, str(task.device)) == ("bf16", 7, 3, 99, "cpu")
