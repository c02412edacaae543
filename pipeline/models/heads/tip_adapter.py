"""Tip-Adapter (Zhang et al. 2022, arXiv:2207.09519): the training images as keys of a cache, no training.

logits = alpha * exp(-beta (1 - f F^T)) L + scale * f W^T, with the features F (P, D) of the training images, their
labels L (P, C) as one-hot rows, and the text features W (C, D). alpha and beta are chosen on the validation images.
The paper averages each key over ten augmented views; keys here are the cached features as they are.
"""

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from . import Head as Base
from . import NotNegative, Positive, TrainingData, method

# features of some models lie in a narrow cone, where cosines of 0.9 are usual and only a large beta tells them apart
ALPHAS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
BETAS = (0.5, 1.0, 2.0, 4.0, 5.5, 8.0, 11.0, 16.0, 22.0, 32.0, 45.0, 64.0, 90.0, 128.0, 180.0, 256.0)


class Head(Base):
    """keys (P, D), values (P, C), captions (C, D); keys are learnt by Tip-Adapter-F."""

    def __init__(self, classes: int, dimensions: int, examples: int, scale: float, alpha: float, beta: float):
        super().__init__(classes, dimensions=dimensions, examples=examples, scale=scale, alpha=alpha, beta=beta)
        self.keys = torch.nn.Parameter(torch.zeros(examples, dimensions))
        self.register_buffer("values", torch.zeros(examples, classes))
        self.register_buffer("captions", torch.zeros(classes, dimensions))

    def logits(self, features_ND: Tensor) -> Tensor:
        affinity_NP = features_ND @ self.keys.T
        cache_NC = (-self.config["beta"] * (1 - affinity_NP)).exp() @ self.values
        return self.config["alpha"] * cache_NC + self.config["scale"] * features_ND @ self.captions.T

    def at(self, alpha: float, beta: float) -> "Head":
        """The same cache (shared, not copied) with other settings."""
        self.config |= {"alpha": alpha, "beta": beta}
        return self


def start(data: TrainingData, alpha: float, beta: float) -> Head:
    """The cache of the training images; with class weights a class's entries together weigh the same."""
    examples, dimensions = data.train.features.shape
    head = Head(data.classes, dimensions, examples, data.captions.logit_scale, alpha, beta)
    values = functional.one_hot(data.train.labels, data.classes).float()
    with torch.no_grad():
        head.keys.copy_(data.train.features)
        head.values.copy_(values * data.class_weights[data.train.labels][:, None])
        head.captions.copy_(data.captions.features)
    return head


@method(head=Head, needs_text=True, one_space=True, for_unseen=True, samples=False, in_kshot=3)
def tip_adapter(data: TrainingData, choice, alpha: NotNegative | None = None, beta: Positive | None = None) -> None:
    """`alpha`, `beta` given: not searched."""
    search(start(data, 1.0, 5.5), choice, alpha, beta)


def search(head: Head, choice, alpha: float | None = None, beta: float | None = None) -> None:
    """Show the choice every pair of the grid, or of those given."""
    grid = itertools.product(ALPHAS if alpha is None else (alpha,), BETAS if beta is None else (beta,))
    for setting in choice.settings or [{"alpha": a, "beta": b} for a, b in grid]:
        choice.see(head.at(setting["alpha"], setting["beta"]), setting)
