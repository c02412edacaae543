"""Linear probe: scikit-learn's logistic regression (lbfgs), its regularisation chosen on the validation images.

The sweep of CLIP (Radford et al. 2021, arXiv:2103.00020, appendix A.3): C (1 / lambda) up to 1e6, first at every second
decade, then twice as fine around the best, down to an eighth of a decade; at most 1,000 iterations each. It begins at
1e-2 and not at 1e-6: features are of length 1 here, and below that the weights are so small against the intercepts that
the classes' frequencies decide, which are others once the validation images are learnt from as well.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from . import Count, Positive, TrainingData, method
from . import Head as Base

NEVER = -1e4  # logit of a class without a training image
COARSE = tuple(range(-2, 7, 2))  # decades
FINEST = 0.125  # decades


class Head(Base):
    """weight (C, D), bias (C,)."""

    def __init__(self, classes: int, dimensions: int):
        super().__init__(classes, dimensions=dimensions)
        self.register_buffer("weight", torch.zeros(classes, dimensions))
        self.register_buffer("bias", torch.full((classes,), NEVER))

    def logits(self, features_ND: Tensor) -> Tensor:
        return features_ND @ self.weight.T + self.bias


@method(head=Head, samples=False, refit=True, in_kshot=1)
def linear_probe(data: TrainingData, choice, C: Positive | None = None, iterations: Count = 1000) -> None:  # noqa: N803
    """`C` given: no sweep."""
    if choice.settings is not None or C is not None:
        for setting in choice.settings or [{"C": float(C)}]:
            choice.see(regression(data, setting["C"], iterations), setting)
        return
    scores: dict[float, tuple[float, float]] = {}

    def score(decade: float) -> None:
        if decade not in scores and COARSE[0] <= decade <= COARSE[-1]:
            setting = {"C": 10.0**decade}
            scores[decade] = choice.see(regression(data, setting["C"], iterations), setting)

    for decade in COARSE:
        score(float(decade))
    step = 1.0
    while step >= FINEST:
        best = max(scores, key=lambda decade: scores[decade])
        score(best - step)
        score(best + step)
        step /= 2


def regression(data: TrainingData, C: float, iterations: int) -> Head:  # noqa: N803
    """The fitted classifier; two classes are written as two rows, of opposite sign."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weights = "balanced" if data.balance == "weights" else None
    model = LogisticRegression(C=C, max_iter=iterations, class_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a large C need not converge to be the best
        model.fit(data.train.features.numpy(), data.train.labels.numpy())
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        coefficients, intercepts = (np.concatenate([-v / 2, v / 2]) for v in (coefficients, intercepts))
    head = Head(data.classes, data.train.features.shape[1])
    rows = torch.from_numpy(model.classes_)
    head.weight[rows] = torch.from_numpy(coefficients).float()
    head.bias[rows] = torch.from_numpy(intercepts).float()
    return head
