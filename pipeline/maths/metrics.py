"""Measures of predictions, without torch: they are needed where it would take longer to import."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ECE_BINS = 15
SCORES = ("acc1", "acc5", "macro_f1", "mean_per_class_recall", "ece")


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


def share_to_see(flipped: int, images: int, board: int) -> float:
    """Share of the flipped labels that must be improvements for the board to show a gain of two standard errors.

    Of f = flipped x board / images labels on the board, a share r for the better and the rest for the worse move the
    score by (2 r - 1) f images, with a standard error of sqrt(f) (`difference_noise`). Above 1: no gain can be seen.
    """
    on_board = flipped * board / images
    return 0.5 + 1 / math.sqrt(on_board) if on_board else math.inf


class Interval(NamedTuple):
    """A measured value and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Predictions:
    """What a classifier said of N images, beside the truth (N,).

    `top` (N, 5 or fewer) are the most probable labels, best first; `confidence` (N,) is the first one's probability.
    """

    truth: np.ndarray
    top: np.ndarray
    confidence: np.ndarray
    classes: int

    @property
    def right(self) -> np.ndarray:
        """Whether the first label is right (N,)."""
        return self.top[:, 0] == self.truth


def scores(predictions: Predictions, counts: np.ndarray | None = None) -> dict[str, float]:
    """The values of SCORES; `counts` (N,) says how often each image counts (a bootstrap resample), once by default.

    Macro F1 is over classes that are true or predicted of some image, mean per-class recall over those that are true
    (balanced accuracy). Calibration error: 15 bins of equal width.
    """
    truth, top, right = predictions.truth, predictions.top, predictions.right
    counts = np.ones(len(truth)) if counts is None else counts.astype(float)
    total = counts.sum()
    true = np.bincount(truth, counts, predictions.classes)
    said = np.bincount(top[:, 0], counts, predictions.classes)
    hits = np.bincount(truth, counts * right, predictions.classes)
    bins = np.minimum((predictions.confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, counts * (right - predictions.confidence), ECE_BINS)
    return {
        "acc1": hits.sum() / total,
        "acc5": (counts * (top == truth[:, None]).any(axis=1)).sum() / total,
        "macro_f1": np.mean(2 * hits[true + said > 0] / (true + said)[true + said > 0]),
        "mean_per_class_recall": np.mean(hits[true > 0] / true[true > 0]),
        "ece": np.abs(gaps).sum() / total,
    }


def resamples(rows: int, number: int, seed: int = 0):
    """Yield how often each of `rows` images is drawn in each of `number` bootstrap resamples."""
    random = np.random.default_rng(seed)
    for _ in range(number):
        yield np.bincount(random.integers(0, rows, rows), minlength=rows)


def intervals(predictions: Predictions, number: int = 1000) -> dict[str, Interval]:
    """SCORES with percentile bootstrap intervals over images."""
    drawn = [list(scores(predictions, counts).values()) for counts in resamples(len(predictions.truth), number)]
    bounds = np.percentile(drawn, [2.5, 97.5], axis=0)
    values = scores(predictions)
    return {name: Interval(float(values[name]), *map(float, bounds[:, n])) for n, name in enumerate(values)}


def difference(after: np.ndarray, before: np.ndarray, number: int = 1000) -> Interval:
    """Mean of after - before (N,) with its paired percentile bootstrap interval."""
    change = after.astype(float) - before
    drawn = [np.dot(counts, change) / len(change) for counts in resamples(len(change), number)]
    return Interval(float(change.mean()), *map(float, np.percentile(drawn, [2.5, 97.5])))


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Exact two-sided p-value that two classifiers are equally often right on the same images (McNemar 1947).

    Only images count that one gets right and the other wrong; under the hypothesis either is as likely.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)
