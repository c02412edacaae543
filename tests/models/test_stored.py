"""Weights at a URL: fetched once, known by their sum."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from pipeline import models
from pipeline.chain import features
from pipeline.cli.models import weights_state
from pipeline.core.errors import Damaged, NotFound, Unavailable, UserError
from pipeline.core.store import Url
from pipeline.models import stored
from pipeline.recipes import ModelEntry

from ..conftest import fresh, refused, write_yaml
from ..core.test_store import bucket, failing  # noqa: F401  (fixtures)
from .test_timm import FACTS, weights  # noqa: F401  (fixture)

URL = "memory://bucket/m.safetensors"


def entry(content: bytes, **more) -> dict:
    options = {"architecture": "mobilenetv2_050", "preprocess": "tiny", "options": {"pad_type": "same"}}
    sha256 = hashlib.sha256(content).hexdigest()
    return {"family": "timm", "weights": URL, "sha256": sha256, **options, **FACTS, "size": 32, **more}


def test_they_are_fetched_once_and_give_the_features_of_the_file(project_root, weights, failing, monkeypatch):  # noqa: F811
    monkeypatch.setattr(stored, "RANGE", 1_000_000)
    content = weights[0].read_bytes()
    (failing / "m.safetensors").write_bytes(content)
    own = {**entry(content), "weights": str(weights[0])}
    del own["sha256"]
    plain = json.loads(json.dumps({"away": entry(content), "here": own}))  # YAML would write aliases
    write_yaml(project_root / "models.local.yaml", plain)
    task = fresh(project_root)
    away, here = (task.project.member(f"{name}@tiny") for name in ("away", "here"))
    assert weights_state(task.project.model("away"), task.project) == f"to download {URL}"
    before = features.stage(task, away).digest
    assert not (project_root / "cache" / "weights").exists(), "to know what it is nothing is fetched"
    assert features.of_member(task, away)[1] == features.of_member(task, here)[1] > 0
    seen = [features.stage(task, one).rows("features", 0, 5) for one in (away, here)]
    assert torch.equal(*seen) and features.stage(task, away).digest == before
    (failing / "m.safetensors").unlink()
    assert weights_state(task.project.model("away"), task.project) == "on disk"
    models.load("away", task.project.model("away"), project_root, "image", torch.device("cpu"), "fp32")


@pytest.mark.parametrize("there", [b"other weights", None])
def test_what_is_not_what_the_entry_says_is_refused_and_not_kept(tmp_path, bucket, there):  # noqa: F811
    if there:
        Url(URL).write_bytes(there)
    wanted = ModelEntry.parse(entry(b"right"), "models.yaml: m")
    for _ in range(2):
        with refused(Damaged if there else NotFound, "m", URL):
            models.load("m", wanted, tmp_path, "image", torch.device("cpu"), "fp32")
    assert not stored.place(wanted, tmp_path).exists()


def test_where_they_do_not_fit_the_folder_of_weights_is_named(tmp_path, bucket, monkeypatch):  # noqa: F811
    Url(URL).write_bytes(b"right")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with refused(Unavailable, "model m", str(tmp_path / "cache" / "weights"), "link"):
        stored.fetch("m", ModelEntry.parse(entry(b"right"), "m"), tmp_path)


def test_a_store_that_does_not_answer_is_said(tmp_path, bucket, monkeypatch):  # noqa: F811
    def nobody(*arguments, **options):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(type(bucket._system), "info", nobody)
    with refused(Unavailable, URL):
        stored.fetch("m", ModelEntry.parse(entry(b"right"), "m"), tmp_path)


@pytest.mark.parametrize("change", [{"sha256": None}, {"sha256": "ab"}, {"weights": "here.safetensors"}])
def test_a_sum_goes_with_a_url(change):
    content = {key: value for key, value in entry(b"x", **change).items() if value is not None}
    with refused(UserError, "sha256"):
        ModelEntry.parse(content, "models.yaml: m")
