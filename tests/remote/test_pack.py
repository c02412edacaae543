"""A pack holds what is missing, no more; what runs there gives what would have been computed here, and comes back."""

import importlib.util
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from pipeline.chain import features, text
from pipeline.chain.main_job import submit
from pipeline.core.errors import UserError
from pipeline.remote import missing, there, wheel

from ..conftest import IMAGES, SIZE, fresh, write_images, write_yaml
from .conftest import MEMBERS, automatic


@pytest.fixture
def pack(command, project_root):
    """`make pack` in this process: what it said, and the zip unpacked in a folder."""

    def run(*more: str, folder: str = "there") -> tuple[str, Path]:
        done = command(project_root, "pack", "--competition", "tiny", *more)
        assert done.returncode == 0, done.stderr
        unpacked = project_root.parent / folder
        zipfile.ZipFile(project_root / "packs" / "tiny.zip").extractall(unpacked)
        return done.stdout, unpacked

    return run


def script(unpacked: Path) -> ModuleType:
    """run.py of a pack, as a module."""
    spec = importlib.util.spec_from_file_location("run_there", unpacked / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def at(monkeypatch):
    """The other machine, as far as it is in this process: what `there.py` works on."""

    def work(unpacked: Path, images: Path) -> there.There:
        script(unpacked).set_up(unpacked / "work")
        monkeypatch.chdir(unpacked / "work" / "project")
        return there.There.of(unpacked, images)

    return work


def everything(found: there.There) -> None:
    there.check(found)
    there.encode(found, found.pack.models)


def test_what_is_encoded_there_is_what_would_be_here(project_root, pack, at, unpack, command, loads, capsys):
    said, unpacked = pack("--dtype", "bf16", "--images")
    assert [line.split()[:3] for line in said.splitlines()[1:3]] == [["vit", "23", "12"], ["vit2", "23", "12"]]
    found = at(unpacked, unpacked / "images")
    everything(found)
    there.collect(found, unpacked / "tiny.features")
    assert "23 of 23 encoded" in capsys.readouterr().out
    submit(replace(automatic(project_root), dtype_name="bf16"), "both")  # computes it here as well, to compare
    here = {name: _features(project_root, name) for name in MEMBERS}
    shutil.rmtree(project_root / "cache")
    done = unpack(unpacked / "tiny.features")
    assert done.returncode == 0, done.stderr
    loads.clear()
    submit(automatic(project_root), "both")
    assert loads == []
    for name in MEMBERS:
        for ours, theirs in zip(here[name], _features(project_root, name), strict=True):
            assert torch.equal(ours, theirs)
    assert "nothing is missing here" in command(project_root, "pack", "--competition", "tiny").stdout


@pytest.mark.slow
def test_a_witness_without_texts_goes_along(project_root, pack, at, unpack, loads):
    torch.manual_seed(2)
    save_file(timm.create_model("mobilenetv2_050", pretrained=False).state_dict(), project_root / "m.safetensors")
    net = {"family": "timm", "architecture": "mobilenetv2_050", "weights": "m.safetensors", "preprocess": "tiny"}
    net |= {"size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    write_yaml(project_root / "models.local.yaml", {"net": net})
    competition = project_root / "competitions" / "tiny.yaml"
    competition.write_text(competition.read_text() + "\nrules: {test_set: true}\n")
    both = yaml.safe_load((project_root / "ensembles" / "both.yaml").read_text())
    write_yaml(project_root / "ensembles" / "both.yaml", {**both, "refine": ["recommended"], "witness": "net"})
    said, unpacked = pack("--dtype", "fp32", "--images")
    assert ["net", "23", "0"] in [line.split()[:3] for line in said.splitlines()]
    found = at(unpacked, unpacked / "images")
    everything(found)
    there.collect(found, unpacked / "tiny.features")
    assert unpack(unpacked / "tiny.features").returncode == 0
    loads.clear()
    submit(automatic(project_root), "both")
    assert loads == []


def _features(root, name: str) -> tuple:
    task = replace(automatic(root), dtype_name="bf16")
    member = task.project.member(name)
    known, new = text.of_prompts(task, member.model, task.prompts)
    assert new == 0
    return features.stage(task, member).rows("features", 0, IMAGES), known.features


def test_a_pack_holds_what_is_needed_and_no_more(project_root, pack):
    said, unpacked = pack()
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    weights = {f"project/weights/{name}/{name}/{file}" for name in ("vit", "vit2") for file in CHECKPOINT}
    recipes = {f"project/preprocess/{name}.yaml" for name in ("tiny", "tiny-sharp")} | {
        "project/competitions/tiny.yaml",
        "project/models.yaml",
        "project/cache/behaviour.json",
    }
    own = {"pack.json", "images.json", "run.py", "run.ipynb", "kernel-metadata.json", wheel.name()}
    assert files == weights | recipes | own
    assert "its 23 images are looked for there" in said
    listed = json.loads((unpacked / "images.json").read_text())
    assert listed["ids"] == list(fresh(project_root).images.ids)


CHECKPOINT = ("open_clip_config.json", "open_clip_model.safetensors")


@pytest.mark.slow
def test_what_is_there_is_not_packed(project_root, pack, command):
    submit(automatic(project_root), "one")  # vit is whole, in this machine's own dtype
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["A kitten on a mat"]})
    _, unpacked = pack()
    asked = json.loads((unpacked / "pack.json").read_text())
    assert [one["member"] for one in asked["images"]] == ["vit2@tiny-sharp"]
    assert sorted(one["model"] for one in asked["texts"]) == ["vit", "vit2"]
    assert not (unpacked / "images").exists()
    done = command(project_root, "pack", "--competition", "tiny", "--model", "vit")
    assert done.stdout.splitlines()[1].split()[:3] == ["vit", "0", "12"]


@pytest.mark.slow
def test_all_prompts_are_those_of_every_set_and_cache(project_root, pack):
    write_yaml(project_root / "prompts" / "more" / "_shared.yaml", {"templates": ["my {}"], "classes": "any"})
    submit(automatic(project_root), "one")
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["A kitten on a mat"]})
    for more, wanted in (((), False), (("--prompts", "all"), True)):
        _, unpacked = pack(*more, folder="all" if more else "few")
        prompts = json.loads((unpacked / "pack.json").read_text())["texts"][1]["prompts"]
        assert "A kitten on a mat" in prompts
        assert ("The whiskers" in prompts and "my Cats" in prompts) == wanted


def test_all_prompts_are_those_of_submissions_as_well(project_root):
    submit(automatic(project_root), "one")
    shutil.rmtree(project_root / "cache")
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["A kitten on a mat"]})
    folder = project_root / "submissions" / "tiny"
    odd = {"prompts/../../evil.yaml": "x", "prompts/s/a.yaml": 3, "prompts/u/b.yaml": "\ud800"}
    (folder / "002-one.json").write_text(json.dumps({"files": odd}))
    (folder / "003-one.json").write_text("[]")
    (folder / "004-one.json").write_text("{")
    for history in (False, True):
        (asked,) = missing.texts(automatic(project_root), "one", history)
        assert "A kitten on a mat" in asked.prompts
        assert ("The whiskers" in asked.prompts) == history


def test_a_competition_on_kaggle_has_its_images_there(project_root, pack):
    recipe = project_root / "competitions" / "tiny.yaml"
    recipe.write_text(recipe.read_text() + "leaderboard: {kaggle: tiny-scenes}\n")
    _, unpacked = pack()
    about = json.loads((unpacked / "kernel-metadata.json").read_text())
    assert about["competition_sources"] == ["tiny-scenes"]
    assert about["enable_gpu"] is True


def test_a_competition_elsewhere_is_refused_before_anything_is_encoded(project_root, pack, at, tmp_path):
    _, unpacked = pack()
    found = at(unpacked, project_root / "data" / "tiny")
    there.check(found)
    with pytest.raises(UserError, match=r"23 of 23 images are not there: 0.jpg, 1.jpg.*--images"):
        there.check(at(unpacked, tmp_path))
    write_images(tmp_path / "other", IMAGES, seed=3)
    with pytest.raises(UserError, match="23 of 23 images are other images than those of the pack"):
        there.check(at(unpacked, tmp_path / "other"))


def change_weights(unpacked: Path) -> str:
    file = unpacked / "project" / "weights" / "vit" / "vit" / "open_clip_config.json"
    file.write_text(file.read_text() + " ")
    return "other weights of vit"


def change_recipe(unpacked: Path) -> str:
    write_yaml(
        unpacked / "project" / "preprocess" / "tiny.yaml", {"size": 32, "ops": [{"resize": "squash"}, {"sharpen": 9.0}]}
    )
    return "another preprocess/tiny.yaml"


def change_first_pixels(unpacked: Path) -> str:
    """As if the recipe had given other pixels at home, with another version of a library."""
    from pipeline.core.digests import read_memo, write_memo

    path = unpacked / "project" / "cache" / "behaviour.json"
    write_memo(path, {key: {"first": "other", "found": {}} for key in read_memo(path)})
    return "libraries that make other pixels"


@pytest.mark.parametrize("change", [change_weights, change_recipe, change_first_pixels], ids=lambda c: c.__name__)
def test_what_would_be_refused_at_home_is_not_encoded(project_root, pack, at, change):
    _, unpacked = pack()
    words = change(unpacked)
    with pytest.raises(UserError, match=words):
        there.check(at(unpacked, project_root / "data" / "tiny"))


@pytest.mark.slow
def test_one_model_that_fails_stops_no_other(project_root, pack, at, monkeypatch, capsys):
    _, unpacked = pack()
    found = at(unpacked, project_root / "data" / "tiny")
    begin = features.Encoding.__init__

    def failing(self, task, member, *rest):
        if member.model == "vit":
            raise torch.OutOfMemoryError("CUDA out of memory")
        begin(self, task, member, *rest)

    monkeypatch.setattr(features.Encoding, "__init__", failing)
    with pytest.raises(UserError, match="vit@tiny: CUDA out of memory"):
        everything(found)
    there.collect(found, unpacked / "tiny.features")
    said = capsys.readouterr().out
    assert "vit@tiny: 0 of 23 encoded, 23 are not encoded yet" in said
    assert "vit2@tiny-sharp: 23 of 23 encoded" in said


@pytest.mark.slow
def test_only_rows_that_are_asked_for_are_encoded(project_root, pack, at, capsys):
    _, unpacked = pack("--shard", "5")
    asked = json.loads((unpacked / "pack.json").read_text())
    for one in asked["images"]:
        one["rows"] = [[3, 5], [20, 23]]
    (unpacked / "pack.json").write_text(json.dumps(asked))
    partial = project_root.parent / "partial"
    partial.mkdir()
    for number in (3, 4, 20, 21, 22):  # the others need not be there
        shutil.copy(project_root / "data" / "tiny" / f"{number}.jpg", partial)
    found = at(unpacked, partial)
    everything(found)
    stage = found.stage(found.pack.images[0])
    assert [(start, stop) for start, stop, _ in stage.shards()] == [(3, 5), (20, 23)]
    there.collect(found, unpacked / "tiny.features")
    assert "vit@tiny: 5 of 5 encoded" in capsys.readouterr().out


def test_every_gpu_has_a_process_and_what_is_larger_than_one_has_all(project_root, pack):
    _, unpacked = pack()
    run, started = script(unpacked), []
    there = SimpleNamespace(run=lambda step, *more, processes: started.append((step, *more, processes)))
    sizes = {"small": 0.5, "large": 43.1, "unknown": None}
    for gpus, wanted in (
        ("16e9 16e9", [("encode", "--models", "small", "unknown", 2), ("encode", "--models", "large", 1)]),
        ("80e9", [("encode", "--models", "small", "large", "unknown", 1)]),
        ("", [("encode", "--models", "small", "large", "unknown", 1)]),
    ):
        run.GPUS, started[:] = f"print({gpus!r}.replace('e9', 9 * '0'))", []
        assert run.encode(there, {"gpu_gb": sizes}) is False
        assert started == wanted


def test_a_damaged_pack_is_told_as_such(project_root, pack, tmp_path):
    _, unpacked = pack()
    run, file = script(unpacked), unpacked / wheel.name()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SystemExit, match="the wheel is not there or damaged: unzip the pack again"):
        run.set_up(tmp_path / "work")
    for content in ("{", None):
        (unpacked / "pack.json").write_text(content) if content else (unpacked / "pack.json").unlink()
        with pytest.raises(SystemExit, match="pack.json is not there or damaged"):
            run.read("pack.json")


def test_the_notebook_is_python(project_root, pack):
    _, unpacked = pack()
    cells = json.loads((unpacked / "run.ipynb").read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            compile(cell["source"], "cell", "exec")


def test_paths_that_are_elsewhere_are_packed_or_refused(project_root, command):
    models = yaml.safe_load((project_root / "models.yaml").read_text())
    (project_root.parent / "tokens").mkdir()
    models["vit"]["tokenizer"] = str(project_root.parent / "tokens")
    write_yaml(project_root / "models.yaml", models)
    done = command(project_root, "pack", "--competition", "tiny")
    assert (done.returncode, "vit: tokenizer" in done.stderr) == (1, True)
    assert not (project_root / "packs" / "tiny.zip").exists()
