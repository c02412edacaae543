"""Measures of predictions and their intervals, each defined once: for boards, benchmarks, training and pages.

Without torch: they are needed where it would take longer to import. Shape suffixes: N images, C classes, B bins.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ECE_BINS = 15
SCORES = ("acc1", "acc5", "macro_f1", "mean_per_class_recall", "ece")


def accuracy(labels: Sequence[int], truth: Sequence[int]) -> float:
    """Share of equal entries (acc1)."""
    return sum(a == b for a, b in zip(labels, truth, strict=True)) / len(truth)


def log_loss(shares_NC: np.ndarray, truth: Sequence[int]) -> float:
    """Mean of -log of the true class's share; shares of 0 count as the smallest step of a double (scikit-learn's)."""
    true_N = np.asarray(shares_NC, dtype=float)[np.arange(len(truth)), truth]
    return float(-np.log(true_N.clip(np.finfo(float).eps, 1)).mean())


def mean_average_precision(best_NK: np.ndarray, truth: Sequence[int]) -> float:
    """MAP@K of one true label an image: mean of 1 / its place among the K that are said, 0 where it is not."""
    hits_NK = np.asarray(best_NK) == np.asarray(truth)[:, None]
    return float((hits_NK / np.arange(1, hits_NK.shape[1] + 1)).sum(1).mean())


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

    def __str__(self) -> str:
        """The value and half the width of the interval."""
        return f"{self.value:.3f} ±{(self.high - self.low) / 2:.3f}"


@dataclass(frozen=True)
class ByClass:
    """How many images are of each class (`true`), are said to be (`said`), and both (`hits`); each (C,)."""

    true: np.ndarray
    said: np.ndarray
    hits: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray, labels: np.ndarray, classes: int, counts: np.ndarray | None = None) -> "ByClass":
        """From labels (N,) beside the truth (N,); `counts` (N,) says how often each image counts, once by default."""
        counts = np.ones(len(truth)) if counts is None else counts
        weights = ((truth, counts), (labels, counts), (truth, counts * (labels == truth)))
        return cls(*(np.bincount(of, count, classes) for of, count in weights))

    @property
    def precision(self) -> np.ndarray:
        """(C,); like the two below 0 where there is nothing to take a share of."""
        return _shares(self.hits, self.said)

    @property
    def recall(self) -> np.ndarray:
        return _shares(self.hits, self.true)

    @property
    def f1(self) -> np.ndarray:
        return _shares(2 * self.hits, self.true + self.said)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that are true or said of an image: scikit-learn's f1_score(average="macro")."""
        return np.mean(self.f1[self.true + self.said > 0])

    @property
    def mean_recall(self) -> float:
        """Mean recall of the classes that are true of an image: scikit-learn's balanced_accuracy_score."""
        return np.mean(self.recall[self.true > 0])


def _shares(part_C: np.ndarray, whole_C: np.ndarray) -> np.ndarray:
    return np.divide(part_C, whole_C, out=np.zeros(len(whole_C)), where=whole_C > 0)


@dataclass(frozen=True)
class Calibration:
    """Images, sum of their confidences, and how many of them are right, in ECE_BINS bins of equal width; each (B,)."""

    images: np.ndarray
    confidence: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, right: np.ndarray, confidence: np.ndarray, counts: np.ndarray | None = None) -> "Calibration":
        """From what is right (N,) and how sure it is (N,); `counts` as of `ByClass`."""
        counts = np.ones(len(right)) if counts is None else counts
        bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
        return cls(*(np.bincount(bins, counts * part, ECE_BINS) for part in (1, confidence, right)))

    @property
    def error(self) -> float:
        """Mean distance of confidence from the share of right labels (ECE, Guo et al. 2017, arXiv:1706.04599)."""
        return np.abs(self.right - self.confidence).sum() / self.images.sum()


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

    `ByClass` and `Calibration` say how those are defined.
    """
    truth, top = predictions.truth, predictions.top
    counts = np.ones(len(truth)) if counts is None else counts.astype(float)
    found = ByClass.of(truth, top[:, 0], predictions.classes, counts)
    return {
        "acc1": found.hits.sum() / counts.sum(),
        "acc5": (counts * (top == truth[:, None]).any(axis=1)).sum() / counts.sum(),
        "macro_f1": found.macro_f1,
        "mean_per_class_recall": found.mean_recall,
        "ece": Calibration.of(predictions.right, predictions.confidence, counts).error,
    }


def resamples(rows: int, number: int, seed: int = 0) -> Iterator[np.ndarray]:
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


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean over repeated measurements with its 95 % interval (Student's t); of a single one without width."""
    from scipy.stats import t

    mean, n = float(np.mean(values)), len(values)
    half = t.ppf(0.975, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Interval(mean, mean - half, mean + half)


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Exact two-sided p-value that two classifiers are equally often right on the same images (McNemar 1947).

    Only images count that one gets right and the other wrong; under the hypothesis either is as likely.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)
