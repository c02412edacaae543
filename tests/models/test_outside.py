"""A family and a head method from outside the package, named in YAML and used by the commands."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from pipeline import models
from pipeline.chain import features as chain_features
from pipeline.chain import probs as chain_probs
from pipeline.core.errors import Mismatch, NotFound
from pipeline.learn import kshot
from pipeline.models import family, heads
from pipeline.recipes import ModelEntry, Project

from ..conftest import IMAGES, ROOT, SIZE, failed, fresh, refused, write_yaml
from ..learn.test_training import pets, root  # noqa: F401  (fixtures)

MODULE = f"{__package__}.outsider"
ENTRY = {"family": "colours", "weights": "mine", "preprocess": "tiny", "size": SIZE, "resize_mode": "squash"}
ENTRY |= {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@pytest.fixture(autouse=True)
def outsider(monkeypatch):
    """Both registered, for one test."""
    monkeypatch.setattr(family, "FAMILIES", dict(family.FAMILIES))
    monkeypatch.setitem(heads.METHODS, "nearest_mean", None)  # taken out again afterwards
    family.register(MODULE, "colours")
    sys.modules.pop(MODULE, None)
    __import__(MODULE)


@pytest.fixture
def coloured(root):  # noqa: F811
    (root / "mine").mkdir()
    save_file(
        {"mix": torch.tensor([[1.0, -1, 0, 2], [0, 1, -1, 1], [-1, 0, 1, 0.5]])}, root / "mine/colours.safetensors"
    )
    write_yaml(root / "models.local.yaml", {"mean-colour": ENTRY})
    return root


def test_its_features_are_cached_and_its_traits_count(coloured):
    task = fresh(coloured)
    member = task.project.member("mean-colour@tiny")
    features, encoded = chain_features.of_member(task, member)
    assert encoded == IMAGES and features.rows("features", 0, IMAGES).shape == (IMAGES, 4)
    assert chain_features.of_member(fresh(coloured), member)[1] == 0
    with refused(Mismatch, "mean-colour", "family colours"):
        chain_probs.of_member(fresh(coloured), member)
    with refused(Mismatch, "mean-colour", "open_clip, timm, transformers"):
        models.check_trainable("mean-colour", Project(coloured).model("mean-colour"))
    models.identity("m", ModelEntry.parse({**ENTRY, "allow": ["size"]}, "m"), coloured)
    with refused(NotFound, "'colour'", "Did you mean 'colours'"):
        models.identity("m", ModelEntry.parse({**ENTRY, "family": "colour"}, "m"), coloured)


def test_a_head_of_its_own_is_trained_saved_and_benchmarked(coloured, command):
    recipe = {"model": "mean-colour", "dataset": "pets", "method": {"nearest_mean": {"sharpness": 3.0}}, "small": 3}
    write_yaml(coloured / "training" / "mine.yaml", recipe)
    assert command(coloured, "train", "--recipe", "mine").returncode == 0
    assert heads.describe(coloured / "trained/mine/head.safetensors", "x")["method"] == "nearest_mean"
    again = command(coloured, "benchmark", "--datasets", "pets", "--models", "mine")
    assert again.returncode == 0 and "mine@tiny" in again.stdout
    assert "nearest_mean" in kshot._methods((), with_text=False)
    recipe["balance"] = "sampling"
    write_yaml(coloured / "training" / "other.yaml", recipe)
    failed(command(coloured, "train", "--recipe", "other"), "nearest_mean", "'balance: weights'")


def test_traits_are_read_without_importing(tmp_path):
    """Also those of another package: nothing in it is run before a tower is loaded."""
    (tmp_path / "other.py").write_text("import no_such_module\nFAMILY = Family(text=False)\n")
    code = (
        "import sys; from pipeline.models import family; family.register('other'); "
        "assert 'other' in family.having(text=False); assert not {'torch', 'timm', 'other'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": f"{ROOT}:{tmp_path}"}, check=True)
