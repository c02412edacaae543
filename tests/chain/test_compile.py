"""COMPILE=1: the same features within the dtype's noise, or no run at all; the digest is that of any other run."""

import shutil

import pytest
import torch

from pipeline.chain import canary, features
from pipeline.chain.stage import make
from pipeline.cli import _options
from pipeline.core.errors import Mismatch, Unavailable

from ..conftest import IMAGES, failed, fresh, pipeline, refused


class Tower:
    """As a model is: its features when it is compiled are `then`."""

    image_size, dtype = 8, "fp32"

    def __init__(self, then):
        self.then, self.now, self.batches = then, lambda images: torch.eye(3)[:1].expand(len(images), -1), []

    def encode_image(self, images):
        self.batches.append(len(images))
        return self.now(images)

    def compile(self, batch):
        self.now = self.then


def fails(images):
    raise RuntimeError("no C++ compiler\nand much more")


def test_an_error_of_the_compiler_is_one_line():
    with refused(Unavailable, "COMPILE=1", "vit", "no C++ compiler") as error:
        canary.compiled("vit", Tower(fails), 4)
    assert "\n" not in str(error.value) and "much more" not in str(error.value)


@pytest.mark.parametrize("features", [[0.0, 1.0, 0.0], [1.0, 0.1, 0.0], [float("nan")] * 3])
def test_other_features_are_refused(features):
    with refused(Mismatch, "COMPILE=1", "vit"):
        canary.compiled("vit", Tower(lambda images: torch.tensor([features]).expand(len(images), -1)), 4)


def test_noise_is_none_and_it_is_compiled_for_whole_batches():
    tower = Tower(lambda images: torch.tensor([[1.0, 1e-4, 0.0]]).expand(len(images), -1))
    canary.compiled("vit", tower, 4)
    assert tower.batches == [1, 4]


def test_the_option_is_a_flag_of_verbs_that_compute(project_root):
    assert _options.runtime_of(_options.parse(["infer", "COMPILE=1"])).compiles
    assert not _options.runtime_of(_options.parse(["infer", "COMPILE="])).compiles
    task = fresh(project_root)
    member = task.project.member("vit@tiny")
    assert features.stage(fresh(project_root, compiles=True), member).digest == features.stage(task, member).digest


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_tower_gives_the_same_features(project_root):
    """With a last batch that is smaller than the others."""
    task = fresh(project_root)
    plain = features.stage(task, task.project.member("vit@tiny"))
    make(plain)
    known = plain.rows("features", 0, IMAGES).float()
    shutil.rmtree(plain.path)
    made = features.stage(fresh(project_root, compiles=True, batch_size=IMAGES - 3), task.project.member("vit@tiny"))
    assert made.digest == plain.digest and made.todo == IMAGES
    make(made)
    cosine = torch.nn.functional.cosine_similarity(made.rows("features", 0, IMAGES).float(), known)
    assert cosine.min() > 1 - canary.NOISE["fp32"]


@pytest.mark.slow
def test_without_a_compiler_it_says_so(project_root, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    settings = ["COMPETITION=tiny", "MODEL=vit", "DTYPE=fp32", "DEVICE=cpu", "COMPILE=1"]
    failed(pipeline(project_root, "infer", *settings), "COMPILE=1", "vit")
