"""Measures of predictions, in plain Python: they are needed where torch would take longer to import."""

import math
from collections import Counter
from collections.abc import Sequence


def accuracy(labels: Sequence[int], truth: Sequence[int]) -> float:
    """Share of equal entries (acc1)."""
    return sum(a == b for a, b in zip(labels, truth, strict=True)) / len(truth)


def flips(before: Sequence[int], after: Sequence[int]) -> Counter:
    """How many rows went from one label to another: {(before, after): rows}, unchanged rows left out."""
    return Counter((a, b) for a, b in zip(before, after, strict=True) if a != b)


def accuracy_noise(score: float, rows: int) -> float:
    """Standard error of an accuracy measured on `rows` images (binomial)."""
    return math.sqrt(score * (1 - score) / rows)


def difference_noise(flipped: int, images: int, board: int) -> float:
    """Standard error of the score difference of two submissions that differ in `flipped` of `images` rows.

    The board scores `board` of the images. About flipped x board / images of those differ, and each moves
    the score by at most one image: under the hypothesis that the two are equally good the difference has
    this standard error (McNemar 1947; an upper bound where a row was wrong before and after).
    """
    return math.sqrt(flipped * board / images) / board
