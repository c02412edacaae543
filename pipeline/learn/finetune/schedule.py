"""The learning rate as a function of the step and of the scores so far: nothing to keep, nothing to restore."""

import math
from collections.abc import Sequence

from .settings import Finetune


def factor(settings: Finetune, step: int, total: int, scores: Sequence[float]) -> float:
    """What the learning rate is multiplied by at `step` of `total`; `scores` are those of the epochs so far.

    It rises linearly over the warm-up, then follows half a cosine down to 0, falls on plateaus, or stays.
    """
    warmup = round(settings.warmup * total)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
    if settings.schedule == "plateau":
        return plateau(scores, settings.plateau_patience, settings.plateau_factor)
    return 1.0


def plateau(scores: Sequence[float], patience: int, reduction: float) -> float:
    """`reduction` for each time that more than `patience` epochs brought no better score (higher is better)."""
    best, waited, rate = -math.inf, 0, 1.0
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited > patience:
            rate, waited = rate * reduction, 0
    return rate
