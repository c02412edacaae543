"""Cosine head: a linear map of the image features towards the caption of their class.

`loss: cosine` only draws an image to its own caption (1 - cosine); `contrastive` also pushes it from the others
(cross-entropy of scaled cosines). From one tower pair's space the map starts as the identity; from another image tower
(`captions:` of the recipe) at random, and needs more images.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...maths.zeroshot import normalise
from . import Count, NotNegative, Positive, TrainingData, method
from . import Head as Base
from ._descent import descend


class Head(Base):
    def __init__(self, classes: int, dimensions: int, caption_dimensions: int, scale: float):
        super().__init__(classes, dimensions=dimensions, caption_dimensions=caption_dimensions, scale=scale)
        self.map = nn.Linear(dimensions, caption_dimensions, bias=False)
        self.register_buffer("captions", torch.zeros(classes, caption_dimensions))

    def cosines(self, features_ND: Tensor) -> Tensor:
        """(N, D) -> (N, C)."""
        return normalise(self.map(features_ND)) @ self.captions.T

    def logits(self, features_ND: Tensor) -> Tensor:
        return self.config["scale"] * self.cosines(features_ND)


@method(head=Head, needs_text=True, for_unseen=True)
def cosine(
    data: TrainingData,
    choice,
    loss: Literal["cosine", "contrastive"] = "cosine",
    epochs: Count = 100,
    batch: Count = 64,
    learning_rate: Positive = 1e-3,
    weight_decay: NotNegative = 0.0,
    patience: Count = 20,
) -> None:
    """`patience`: epochs without a better validation score before training stops."""
    dimensions, caption_dimensions = data.train.features.shape[1], data.captions.features.shape[1]
    head = Head(data.classes, dimensions, caption_dimensions, data.captions.logit_scale)
    head.captions.copy_(data.captions.features)
    if dimensions == caption_dimensions:
        nn.init.eye_(head.map.weight)

    def to_own_caption(features: Tensor, labels: Tensor) -> Tensor:
        cosine_N = functional.cosine_similarity(head.map(features), head.captions[labels])
        return (data.class_weights[labels] * (1 - cosine_N)).mean()

    optimiser = torch.optim.Adam(head.map.parameters(), lr=learning_rate, weight_decay=weight_decay)
    wanted = to_own_caption if loss == "cosine" else None
    descend(head, data, choice, optimiser, epochs=epochs, batch=batch, patience=patience, loss=wanted)
