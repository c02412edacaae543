"""Tip-Adapter-F (Zhang et al. 2022, arXiv:2207.09519): Tip-Adapter with its keys trained further.

AdamW, cosine schedule. Keys are trained at alpha 1 and beta 5.5 as published and the best epoch kept; then both are
searched like Tip-Adapter's.
"""

import copy

import torch

from . import Count, NotNegative, Positive, TrainingData, method
from ._descent import descend
from .tip_adapter import Head, search, start


@method(head=Head, needs_text=True, one_space=True, in_kshot=4)
def tip_adapter_f(
    data: TrainingData,
    choice,
    alpha: NotNegative = 1.0,
    beta: Positive = 5.5,
    epochs: Count = 20,
    batch: Count = 256,
    learning_rate: Positive = 1e-3,
    patience: Count = 20,
) -> None:
    """Early stopping and both searches look at the same validation images."""
    head = start(data, alpha, beta)
    optimiser = torch.optim.AdamW([head.keys], lr=learning_rate, eps=1e-4)
    steps = epochs * -(-len(data.train) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    run = {"epochs": epochs, "batch": batch, "patience": patience, "schedule": schedule}
    descend(head, data, choice, optimiser, setting={"alpha": alpha, "beta": beta}, **run)
    search(copy.deepcopy(choice.head()), choice)
