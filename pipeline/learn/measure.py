"""How good a head is on labelled features: the same measures as a benchmark's, by one pass over the features."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..maths import metrics
from ..maths.metrics import Predictions
from ..models.heads import Examples, Head


def predictions(probs_NC: Tensor, labels_N: Tensor) -> Predictions:
    """The five best labels of each image and the first one's probability, beside the truth."""
    best = probs_NC.topk(min(5, probs_NC.shape[1]), dim=1)
    return Predictions(labels_N.numpy(), best.indices.numpy(), best.values[:, 0].numpy(), probs_NC.shape[1])


def of(head: Head, examples: Examples) -> dict[str, float]:
    """acc1, macro_f1, ... and the cross-entropy `loss`."""
    probs = head.probs(examples.features)
    loss = functional.nll_loss(probs.clamp_min(1e-12).log(), examples.labels)
    found = metrics.scores(predictions(probs, examples.labels))
    return {name: float(value) for name, value in found.items()} | {"loss": float(loss)}


def on(validation: Examples) -> Callable[[Head], dict[str, float]]:
    """The measure by which a `Choice` is made among classes that are all trained on."""
    return lambda head: of(head, validation)


@torch.no_grad()
def logits(head: Head, examples: Examples) -> np.ndarray:
    """(N, C), without the bias of calibrated stacking."""
    head.eval()
    return torch.cat([head.logits(rows) for rows in examples.features.split(4096)]).numpy()
