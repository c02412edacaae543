"""Room for large tensors: in a file that ends with them where memory has none."""

import gc
import os
from pathlib import Path

import pytest
import torch

from pipeline.core import room as room_module
from pipeline.core.errors import Unavailable
from pipeline.core.room import room

from ..conftest import refused


def in_file(tensor: torch.Tensor) -> bool:
    """Whether a tensor's memory is that of a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return line.split()[4] != "0"
    raise AssertionError("a tensor's memory is somewhere")


def test_small_ones_are_in_memory(tmp_path):
    assert not in_file(room((300, 5), torch.float16, tmp_path / "cache"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_large_ones_are_in_a_file_that_has_no_name(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(room_module, "SHARE", 0.0)
    found = room((300, 5), kind, tmp_path / "cache")
    assert in_file(found) and found.shape == (300, 5) and found.dtype == kind
    found[:] = torch.arange(1500).view(300, 5)
    assert torch.equal(found[7], torch.arange(35, 40).to(kind)) and found[:, 0].argmax() == 299
    assert not list((tmp_path / "cache").iterdir()), "a run that is killed leaves nothing"
    open_files = len(os.listdir("/proc/self/fd"))
    assert found.sum() > 0
    del found
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= open_files


def test_a_disk_without_room_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(room_module, "SHARE", 0.0)
    with refused(Unavailable, str(tmp_path), "10000000000 x 100000"):
        room((10**10, 10**5), torch.float32, tmp_path)
    assert not list(tmp_path.iterdir())
