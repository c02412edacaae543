"""A small network on the features: hidden layers with batch normalisation, ReLU and dropout; Adam, early stopping.

512-256-128 are the layers of a published few-shot classifier on CLIP features; the logits have no activation.
"""

import torch
from torch import Tensor, nn

from . import Count, NotNegative, Positive, Share, TrainingData, method
from . import Head as Base
from ._descent import descend


class Head(Base):
    def __init__(self, classes: int, dimensions: int, hidden: list[int], dropout: float):
        super().__init__(classes, dimensions=dimensions, hidden=hidden, dropout=dropout)
        layers, width = [], dimensions
        for units in hidden:
            layers += [nn.Linear(width, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))

    def logits(self, features_ND: Tensor) -> Tensor:
        # of unit length in D dimensions, values are near 1 / sqrt(D): brought to the size that layers start from
        return self.layers(features_ND * self.config["dimensions"] ** 0.5)


@method(head=Head, in_kshot=2)
def mlp(
    data: TrainingData,
    choice,
    hidden: list[Count] | None = None,
    dropout: Share = 0.3,
    epochs: Count = 100,
    batch: Count = 64,
    learning_rate: Positive = 1e-3,
    weight_decay: NotNegative = 0.0,
    patience: Count = 20,
) -> None:
    """`patience`: epochs without a better validation score before training stops."""
    head = Head(data.classes, data.train.features.shape[1], [512, 256, 128] if hidden is None else hidden, dropout)
    optimiser = torch.optim.Adam(head.parameters(), lr=learning_rate, weight_decay=weight_decay)
    descend(head, data, choice, optimiser, epochs=epochs, batch=batch, patience=patience)
