"""CLIP-Adapter (Gao et al. 2021, arXiv:2110.04544): a bottleneck on the image features, blended with them.

features = ratio * A(f) + (1 - ratio) * f, normalised, with A = ReLU(W2 ReLU(W1 f)) without biases; logits against the
text features. The paper's visual adapter, which it found better than adapting the text.
"""

import torch
from torch import Tensor, nn

from ...maths.zeroshot import normalise
from . import Count, NotNegative, Positive, Share, TrainingData, method
from . import Head as Base
from ._descent import descend


class Head(Base):
    def __init__(self, classes: int, dimensions: int, reduction: int, ratio: float, scale: float):
        super().__init__(classes, dimensions=dimensions, reduction=reduction, ratio=ratio, scale=scale)
        inner = max(1, dimensions // reduction)
        self.adapter = nn.Sequential(
            nn.Linear(dimensions, inner, bias=False), nn.ReLU(), nn.Linear(inner, dimensions, bias=False), nn.ReLU()
        )
        self.register_buffer("captions", torch.zeros(classes, dimensions))

    def logits(self, features_ND: Tensor) -> Tensor:
        ratio = self.config["ratio"]
        adapted_ND = normalise(ratio * self.adapter(features_ND) + (1 - ratio) * features_ND)
        return self.config["scale"] * adapted_ND @ self.captions.T


@method(head=Head, needs_text=True, one_space=True, for_unseen=True, in_kshot=5)
def clip_adapter(
    data: TrainingData,
    choice,
    ratio: Share = 0.2,
    reduction: Count = 4,
    epochs: Count = 100,
    batch: Count = 64,
    learning_rate: Positive = 1e-3,
    weight_decay: NotNegative = 0.01,
    patience: Count = 20,
) -> None:
    """`patience`: epochs without a better validation score before training stops."""
    dimensions = data.train.features.shape[1]
    head = Head(data.classes, dimensions, reduction, ratio, data.captions.logit_scale)
    head.captions.copy_(data.captions.features)
    optimiser = torch.optim.AdamW(head.adapter.parameters(), lr=learning_rate, weight_decay=weight_decay)
    descend(head, data, choice, optimiser, epochs=epochs, batch=batch, patience=patience)
