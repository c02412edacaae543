"""A small real project: random images, two tiny random open_clip checkpoints, every kind of recipe."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import settings
from PIL import Image
from safetensors.torch import save_file

from pipeline.chain.task import CompetitionTask, Task
from pipeline.core._torchvision import allow_import
from pipeline.core.errors import UserError
from pipeline.recipes import Project
from pipeline.recipes.prompts import PromptSet

allow_import()
settings.register_profile("default", deadline=None, derandomize=True)  # timings vary, results must not
settings.load_profile("default")

ROOT = Path(__file__).parent.parent
CLASSES = ["Cats", "Dogs", "Big Birds"]
IMAGES = 23
SIZE = 32


def tiny_config(layers) -> dict:
    """An open_clip configuration of a few thousand parameters (besides the token embedding)."""
    vision = {"image_size": SIZE, "layers": layers, "width": 32, "patch_size": 16, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic", "resize_mode": "squash"}
    return {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": preprocess}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """What is said is looked for as it was written; how it is broken has tests of its own."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Path:
    """Folders `vit` and `vit2`, in open_clip's local-dir layout."""
    import open_clip

    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, (name, layers) in enumerate({"vit": 2, "vit2": 1}.items()):
        config = tiny_config(layers)
        (folder / name).mkdir()
        (folder / name / "open_clip_config.json").write_text(json.dumps(config))
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config["model_cfg"])
        torch.nn.init.constant_(model.logit_scale, np.log(20.0))
        spread_image_features(model.visual)
        save_file(model.state_dict(), folder / name / "open_clip_model.safetensors")
    return folder


@torch.no_grad()
def spread_image_features(visual, size: int = SIZE) -> None:
    """Take the common direction out of random image features, or every image would get the same label."""
    projection, visual.proj = visual.proj, None
    common = torch.nn.functional.normalize(visual(torch.randn(256, 3, size, size)).mean(dim=0), dim=0)
    visual.proj = torch.nn.Parameter(projection - common[:, None] * (common @ projection))


def write_yaml(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    """JPEGs of smooth random colours in several shapes, named 0.jpg ... and so not in alphabetical order."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        small.resize((40 + number % 3, 40)).save(folder / f"{number}.jpg", quality=90)


@pytest.fixture
def project_root(tmp_path, checkpoints) -> Path:
    """Files of a project with competition `tiny`, members vit@tiny and vit2@tiny-sharp, ensemble `both`."""
    return write_project(tmp_path / "project", checkpoints)


def write_project(root: Path, checkpoints: Path) -> Path:
    """Write these files; returns `root`."""
    write_images(root / "data" / "tiny", IMAGES)
    (root / "data" / "tiny" / ".DS_Store").write_bytes(b"junk")
    write_yaml(
        root / "competitions" / "tiny.yaml",
        {
            "images": "data/tiny",
            "classes": CLASSES,
            "ensemble": "both",
            "columns": {"id_idx": "position", "label": "label"},
            "public_board": 10,
        },
    )
    write_yaml(
        root / "models.yaml",
        {
            "vit": {"family": "open_clip", "weights": str(checkpoints / "vit"), "preprocess": "tiny"},
            "vit2": {"family": "open_clip", "weights": str(checkpoints / "vit2"), "preprocess": "tiny-sharp"},
        },
    )
    write_yaml(root / "prompts" / "tiny" / "_shared.yaml", {"templates": ["{}", "a photo of a {}", "a blurry {}."]})
    write_yaml(root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["The whiskers"]})
    write_yaml(root / "prompts" / "tiny" / "dogs.yaml", {"name": "dog", "without": ["{}"]})
    write_yaml(root / "prompts" / "tiny" / "big_birds.yaml", {"aliases": ["ostriches"]})
    write_yaml(root / "preprocess" / "tiny.yaml", {"size": SIZE, "ops": [{"resize": "squash"}]})
    write_yaml(root / "preprocess" / "tiny-sharp.yaml", {"size": SIZE, "ops": [{"resize": "squash"}, {"sharpen": 2.3}]})
    members = {"vit": 0.5, "vit2@tiny-sharp": 0.5}
    write_yaml(root / "ensembles" / "both.yaml", {"members": members, "threshold": 0.002})
    write_yaml(root / "ensembles" / "one.yaml", {"members": {"vit": 3}})
    return root


@pytest.fixture
def task(project_root) -> Task:
    return fresh(project_root)


def prompt_set(prompts) -> PromptSet:
    """Finished prompts of one class, as if they were written in a file."""
    count = len(prompts)
    return PromptSet(("x",), tuple(prompts), (0,) * count, (1.0,) * count, ("",) * count, (Path("x.yaml"),) * count)


def fresh(root: Path, **settings) -> Task:
    """A task as a new process would have it: nothing read yet."""
    return CompetitionTask(Project(root), "tiny", dtype_name="fp32", **settings)


@contextlib.contextmanager
def refused(kind: type[UserError], *parts: str) -> Iterator[pytest.ExceptionInfo]:
    """The block ends in an error of this very kind that names the offender: each of `parts`, as it is written."""
    assert parts, "an error names the offender"
    with pytest.raises(kind) as error:
        yield error
    told = str(error.value)
    assert error.value.code == kind.code, f"{error.value.code}: {told}"
    assert all(part in told for part in parts), told


def failed(result: subprocess.CompletedProcess, *parts: str) -> None:
    """A verb ended in an error, told in a line or few on stderr, that names the offender: each of `parts`."""
    told = result.stderr
    assert parts and result.returncode == 1, told
    assert re.search("^error: ", told, re.MULTILINE) and "Traceback" not in told, told
    assert all(part in told for part in parts), told


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a verb in this process, where one of its own would prove nothing more: what `pipeline` returns."""
    from pipeline.__main__ import main

    def run(root: Path, *arguments: str) -> subprocess.CompletedProcess:
        monkeypatch.chdir(root)
        capsys.readouterr()
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def pipeline(root: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run `python -m pipeline` in a project as a real process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        **options,
    )
