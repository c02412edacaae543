"""A simulated device: what a tower gives stays there, and the host waits for it at most once a shard."""

import math
from collections import Counter

import pytest
import torch

from pipeline import models
from pipeline.chain import canary, features
from pipeline.chain.stage import make

from ..conftest import IMAGES, fresh

SHARD, BATCH = 10, 3
WAITS = {"cpu", "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__array__", "nonzero", "is_nonzero"}


class OnDevice(torch.Tensor):
    """What was computed on the device: what is made of it is there as well, until it is fetched."""

    waited: Counter = Counter()

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), more=None):
        name = getattr(function, "__name__", "")
        if name in WAITS or (name == "to" and "cpu" in map(str, arguments[1:])):
            cls.waited[name] += 1
            plain = [one.as_subclass(torch.Tensor) if isinstance(one, cls) else one for one in arguments]
            return function(*plain, **(more or {}))
        return super().__torch_function__(function, types, arguments, more or {})


@pytest.fixture
def device(monkeypatch):
    """Counts waiting, and the dtypes of what towers are given."""
    OnDevice.waited, given, load = Counter(), [], models.load

    def loaded(*asked):
        model = load(*asked)
        encode = model.encode_image

        def encoded(pixels):
            given.append(pixels.dtype)
            return encode(pixels).as_subclass(OnDevice)

        model.encode_image = encoded
        return model

    monkeypatch.setattr(models, "load", loaded)
    monkeypatch.setattr(canary, "check", lambda *_: None)  # once a run, before the first shard
    return given


def test_the_simulation_sees_waiting(device):
    there = torch.ones(2).as_subclass(OnDevice)
    assert isinstance(torch.cat([there, there]) * 2, OnDevice) and not OnDevice.waited
    assert not isinstance(there.cpu(), OnDevice)
    _ = bool(there[0] > 0), there[0].item(), there.to("cpu")
    assert OnDevice.waited.total() == 4


def test_the_host_waits_once_a_shard_and_pixels_travel_as_bytes(device, project_root):
    task = fresh(project_root, shard_rows=SHARD, batch_size=BATCH)
    make(features.stage(task, task.project.member("vit@tiny")))
    shards = math.ceil(IMAGES / SHARD)
    assert len(device) > shards, "several batches a shard"
    assert set(device) == {torch.uint8}
    assert OnDevice.waited == Counter(cpu=shards)
