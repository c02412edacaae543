"""Stochastic gradient descent on features in memory, as the trained methods share it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from . import Head, TrainingData


def descend(
    head: Head,
    data: TrainingData,
    choice,
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    batch: int,
    patience: int,
    setting: dict | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    schedule=None,
) -> None:
    """Show `choice` the head after each epoch, with `setting`; end once `patience` of them were no improvement.

    `loss(features, labels)` is cross-entropy by default.
    """
    loss = loss or cross_entropy(head, data)
    for epoch in range(1, epochs + 1):
        head.train()
        total = images = 0
        for rows in batches(data, batch):
            optimiser.zero_grad()
            value = loss(data.train.features[rows], data.train.labels[rows])
            value.backward()
            optimiser.step()
            if schedule:
                schedule.step()
            total, images = total + float(value.detach()) * len(rows), images + len(rows)
        choice.see(head, {"epoch": epoch, **(setting or {})}, train_loss=total / images)
        if choice.finished(patience):
            return


def batches(data: TrainingData, size: int, least: int = 2) -> list[Tensor]:
    """Rows of one epoch, in a random order; with `balance: sampling` drawn with replacement, each class as often.

    A last batch of fewer than `least` rows joins the one before it: batch normalisation needs two.
    """
    rows = balanced_rows(data) if data.balance == "sampling" else torch.randperm(len(data.train))
    parts = list(rows.split(size))
    if len(parts) > 1 and len(parts[-1]) < least:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def balanced_rows(data: TrainingData) -> Tensor:
    """As many rows as there are images, drawn with replacement: every class with a training image equally likely."""
    weights = 1.0 / data.counts[data.train.labels].double()
    return torch.multinomial(weights, len(data.train), replacement=True)


def cross_entropy(head: Head, data: TrainingData) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy over the classes trained on; others have no part in it. Class weights as `data` says."""
    trained, weights = data.trained, data.class_weights[data.trained]

    def loss(features: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(head(features)[:, trained], torch.searchsorted(trained, labels), weight=weights)

    return loss
