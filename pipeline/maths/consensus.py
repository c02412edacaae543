"""Weights of members without a label: who is right more often, when it is they alone who can be asked?

Shape suffixes: M members, N images, C classes, K neighbours.
"""

import torch
from torch import Tensor

from .refine.guards import kappa, others

FEWEST = 100  # images whose neighbours can be asked
CLEARLY = 0.02  # by which neighbours' labels must agree better (Cohen's kappa) in the features of every member
ROUNDS = 100
SETTLED = 1e-6  # mean change of a posterior at which the iteration ends
SURE = 0.99  # no member is held for better, whose weight would be without bounds


def dawid_skene(label_MN: Tensor, classes: int) -> Tensor:
    """Weights (M,) that sum to 1, from the members' labels alone: those of Dawid and Skene's model (1979), by EM.

    Each member has a table of how often it says class j of an image of class k, the true classes are what explains all
    labels best, begun at the members' vote. A member's weight is log(a (C - 1) / (1 - a)), with a its share of right
    labels by the model: what its vote is worth if it errs evenly. Of two members it tells nothing: even weights.
    """
    members, images = label_MN.shape
    said_MNC = torch.nn.functional.one_hot(label_MN, classes).double()
    if members < 3:
        return torch.full((members,), 1 / members, dtype=torch.double)
    z_NC = said_MNC.mean(dim=0)
    for _ in range(ROUNDS):
        before_NC = z_NC
        share_C = (z_NC.sum(dim=0) + 1) / (images + classes)
        table_MCC = torch.einsum("nk,mnj->mkj", z_NC, said_MNC) + torch.eye(classes) + 1 / classes
        table_MCC = table_MCC / table_MCC.sum(dim=2, keepdim=True)
        z_NC = (share_C.log() + torch.einsum("mnj,mkj->nk", said_MNC, table_MCC.log())).softmax(dim=1)
        if (z_NC - before_NC).abs().mean() <= SETTLED:
            break
    right_M = (table_MCC.diagonal(dim1=1, dim2=2) * share_C).sum(dim=1).clamp(1 / classes + 1 - SURE, SURE)
    worth_M = (right_M * (classes - 1) / (1 - right_M)).log()
    return worth_M / worth_M.sum()


def no_better(before_N: Tensor, after_N: Tensor, spaces: list[Tensor]) -> str:
    """Why found weights are not to be taken, '' where they are: the labels before and after are asked of neighbours.

    bench/weights.py chose the limit on training folders, so that no mix was worse than with even weights.
    """
    if len(before_N) < FEWEST:
        return f"{len(before_N)} images are too few to tell"
    if torch.equal(before_N, after_N):
        return "those found change no label"
    every = torch.arange(len(before_N))
    gain = min(
        kappa(after_N, near_NK) - kappa(before_N, near_NK)
        for near_NK in (others(features_ND, every, every) for features_ND in spaces)
    )
    if gain >= CLEARLY:
        return ""
    return f"labels of similar images do not agree clearly better by those found (kappa {gain:+.3f}, asked +{CLEARLY})"
