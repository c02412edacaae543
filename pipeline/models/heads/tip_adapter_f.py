"""Tip-Adapter-F (Zhang et al. 2022, arXiv:2207.09519): Tip-Adapter with its keys trained further.

AdamW, cosine schedule. Keys are trained at alpha 1 and beta 5.5 as published and the best epoch kept; then both are
searched like Tip-Adapter's.
"""

import copy

import torch

from . import Count, Data, NotNegative, Positive, _descent, tip_adapter
from .tip_adapter import Head  # noqa: F401  (what a saved head is filled into)


def fit(
    data: Data,
    choice,
    alpha: NotNegative = 1.0,
    beta: Positive = 5.5,
    epochs: Count = 20,
    batch: Count = 256,
    learning_rate: Positive = 1e-3,
    patience: Count = 20,
) -> None:
    """Early stopping and both searches look at the same validation images."""
    head = tip_adapter.start(data, alpha, beta)
    optimiser = torch.optim.AdamW([head.keys], lr=learning_rate, eps=1e-4)
    steps = epochs * -(-len(data.train) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    first = {"alpha": alpha, "beta": beta}
    for epoch, loss in _descent.epochs(head, data, optimiser, number=epochs, batch=batch, schedule=schedule):
        choice.see(head, {"epoch": epoch, **first}, train_loss=loss)
        if choice.finished(patience):
            break
    tip_adapter.search(copy.deepcopy(choice.head()), choice)
