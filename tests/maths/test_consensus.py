"""Weights of members by their labels alone, and when they are not taken."""

import pytest
import torch

from pipeline.maths import consensus
from pipeline.maths.zeroshot import normalise

CLASSES = 5


def labels(*right: float, n=4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Members that are right with these chances, and err evenly and each by itself; and the truth."""
    draw = torch.Generator().manual_seed(0)
    truth_N = torch.randint(CLASSES, (n,), generator=draw)
    wrong_MN = (truth_N + torch.randint(1, CLASSES, (len(right), n), generator=draw)) % CLASSES
    right_MN = torch.rand(len(right), n, generator=draw) < torch.tensor(right)[:, None]
    return torch.where(right_MN, truth_N, wrong_MN), truth_N


def test_weights_are_the_log_odds_of_being_right():
    chances = torch.tensor([0.9, 0.7, 0.5], dtype=torch.double)
    odds = (chances * (CLASSES - 1) / (1 - chances)).log()
    found = consensus.dawid_skene(labels(0.9, 0.7, 0.5)[0], CLASSES)
    assert found.tolist() == pytest.approx((odds / odds.sum()).tolist(), abs=0.03)
    assert float(found.sum()) == pytest.approx(1)


def test_the_order_of_members_decides_nothing():
    label_MN, _ = labels(0.9, 0.6, 0.7, 0.4)
    found = consensus.dawid_skene(label_MN, CLASSES)
    assert torch.allclose(consensus.dawid_skene(label_MN.flip(0), CLASSES), found.flip(0))


@pytest.mark.parametrize("label_MN", [labels(0.9, 0.3)[0], labels(0.9)[0], labels(0.6)[0].repeat(3, 1)])
def test_of_two_members_or_equal_ones_it_tells_nothing(label_MN):
    assert torch.allclose(consensus.dawid_skene(label_MN, CLASSES), torch.tensor(1 / len(label_MN)).double())


def test_found_weights_are_taken_where_neighbours_agree_clearly_better():
    (worse_N, *_), truth_N = labels(0.7, n=500)
    draw = torch.Generator().manual_seed(1)
    near_ND = normalise(torch.eye(CLASSES)[truth_N] + 0.1 * torch.randn(500, CLASSES, generator=draw))
    far_ND = normalise(torch.randn(500, CLASSES, generator=draw))  # says nothing of the classes
    assert consensus.no_better(worse_N, truth_N, [near_ND]) == ""
    assert "agree clearly better" in consensus.no_better(truth_N, worse_N, [near_ND])
    assert "agree clearly better" in consensus.no_better(worse_N, truth_N, [near_ND, far_ND]), "every member is asked"
    assert "no label" in consensus.no_better(truth_N, truth_N, [near_ND])
    assert "99 images are too few" in consensus.no_better(worse_N[:99], truth_N[:99], [near_ND[:99]])
