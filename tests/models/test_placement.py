"""Where weights go, with simulated GPUs: which of them are asked at all."""

import pytest
import torch
from torch import nn

from pipeline.core.errors import Unavailable
from pipeline.models import _placement


@pytest.fixture
def gpus(monkeypatch) -> dict[int, int]:
    """{number: free bytes}; the numbers that were asked are in `gpus.asked`."""

    class Gpus(dict):
        asked: list[int] = []

    free = Gpus({0: 10_000, 1: 4_000, 2: 50_000})
    free.asked = []

    def mem_get_info(number: int):
        free.asked.append(number)
        return free[number], 60_000

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    return free


def blocks(number: int) -> nn.Module:
    """So many blocks of 1,000 bytes."""
    return nn.Sequential(*(nn.Linear(250, 1, bias=False) for _ in range(number)))


def test_a_model_that_fits_the_first_asks_no_other(gpus):
    assert _placement.plan(blocks(8), torch.device("cuda")) == {"": torch.device("cuda", 0)}
    assert gpus.asked == [0]


def test_the_device_of_a_launched_process_is_the_only_one_asked(gpus):
    assert _placement.plan(blocks(30), torch.device("cuda", 2)) == {"": torch.device("cuda", 2)}
    with pytest.raises(Unavailable, match="DEVICE=cuda:1"):
        _placement.plan(blocks(8), torch.device("cuda", 1))
    assert gpus.asked == [2, 1]


def test_a_larger_one_is_spread_over_all(gpus):
    where = _placement.plan(blocks(30), torch.device("cuda"))
    assert {0, 1, 2} >= set(where.values()) > {0}
    assert set(gpus.asked) == {0, 1, 2}
