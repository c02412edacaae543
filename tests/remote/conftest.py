"""Files of features as the run of a pack leaves them, made here in no time: random numbers of length 1."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline import models
from pipeline.chain.task import CompetitionTask
from pipeline.recipes import Project
from pipeline.remote import facts, features_file
from pipeline.remote.missing import Listed

from ..conftest import IMAGES

MEMBERS = ("vit@tiny", "vit2@tiny-sharp")
WIDTH = 16
CUT = 10  # rows of a shard


def automatic(root: Path, **settings) -> CompetitionTask:
    """The task of a new process, DTYPE=auto."""
    return CompetitionTask(Project(root), "tiny", **settings)


def unit_rows(count: int, dtype, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def parts(root: Path, dtype: str = "fp16", stop: int = IMAGES) -> tuple[dict, dict[str, np.ndarray]]:
    """(the fields of a manifest, its tensors): image features of rows 0 to `stop`, and all prompts."""
    task = automatic(root)
    tensors = {features_file.LIST: features_file.as_bytes(vars(Listed.of(task)))}
    fields: dict = {"competition": "tiny", "data": None, "images": [], "texts": []}
    for seed, name in enumerate(MEMBERS):
        member, shards, all_rows = task.project.member(name), [], unit_rows(IMAGES, np.float16, seed)
        for start in range(0, stop, CUT):
            end = min(start + CUT, stop)
            tensors[f"{name}/{start}"] = all_rows[start:end]
            shards.append({"start": start, "stop": end, "name": f"{name}/{start}"})
        about = {"member": name, "dtype": dtype, "facts": facts.of_images(task, member)}
        fields["images"].append({**about, "shards": shards, "problems": []})
        prompts = list(dict.fromkeys(task.prompts.prompts))
        tensors[member.model] = unit_rows(len(prompts), np.float32, 7 + seed)
        about = {"model": member.model, "dtype": dtype, "facts": facts.of_text(task, member.model)}
        fields["texts"].append({**about, "prompts": prompts, "logit_scale": 20.0, "name": member.model})
    return fields, tensors


def written(path: Path, fields: dict, tensors: dict[str, np.ndarray]) -> Path:
    manifest = features_file.Manifest.parse(fields, "test")
    features_file.write(path, manifest, [(name, partial(np.asarray, array)) for name, array in tensors.items()])
    return path


@pytest.fixture
def brought(project_root, tmp_path) -> Callable[..., Path]:
    """A whole file of features of the small project, after `change(fields, tensors)`."""

    def make(change=lambda fields, tensors: None, **how) -> Path:
        fields, tensors = parts(project_root, **how)
        change(fields, tensors)
        return written(tmp_path / "tiny.features", fields, tensors)

    return make


@pytest.fixture
def loads(monkeypatch) -> list[tuple[str, str]]:
    """(model, tower) of every checkpoint that is really loaded."""
    seen, load = [], models.load

    def noted(name, entry, root, tower, *rest):
        seen.append((name, tower))
        return load(name, entry, root, tower, *rest)

    monkeypatch.setattr(models, "load", noted)
    return seen


@pytest.fixture
def unpack(command, project_root):
    """`make unpack` in this process."""
    return lambda path, *more: command(project_root, "unpack", "--file", str(path), *more)
