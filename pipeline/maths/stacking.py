"""Calibrated stacking of seen and unseen classes, without torch (Chao et al. 2016, arXiv:1605.04253).

A bias subtracted from the logits of the seen classes trades their accuracy for that of the unseen ones. Accuracies are
means over classes. Shape suffixes: N images, C classes, M values of the bias.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def harmonic_mean(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """2ab / (a + b), elementwise; 0 where both are 0."""
    total = np.asarray(a) + np.asarray(b)
    return np.divide(2 * np.asarray(a) * np.asarray(b), total, out=np.zeros_like(total, dtype=float), where=total > 0)


@dataclass(frozen=True)
class Curve:
    """Accuracy of seen and unseen classes (M,) between every two margins `edges` (M - 1,) of images, ascending."""

    edges: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    @property
    def biases(self) -> np.ndarray:
        """A bias for each point (M,), in the middle of its interval."""
        inner = (self.edges[1:] + self.edges[:-1]) / 2
        return np.concatenate([[self.edges[0] - 1], inner, [self.edges[-1] + 1]])

    @property
    def harmonic(self) -> np.ndarray:
        return harmonic_mean(self.seen, self.unseen)

    @property
    def area(self) -> float:
        """AUSUC: area under the curve of seen over unseen accuracy."""
        return float(np.trapezoid(self.seen, self.unseen))

    def at(self, bias: float) -> tuple[float, float, float]:
        """(seen, unseen, harmonic mean) at any bias, as at the one of `biases` that lies between the same margins."""
        point = int(np.searchsorted(self.edges, bias))
        return float(self.seen[point]), float(self.unseen[point]), float(self.harmonic[point])

    @property
    def best(self) -> float:
        """The bias of the highest harmonic mean; of several the one nearest to 0."""
        top = self.biases[self.harmonic == self.harmonic.max()]
        return float(top[np.abs(top).argmin()])


def curve(logits_NC: np.ndarray, truth_N: np.ndarray, seen_C: np.ndarray) -> Curve:
    """The exact curve: between two margins (best seen logit less best unseen one) of images nothing changes."""
    columns = np.arange(logits_NC.shape[1])
    seen_logits, unseen_logits = logits_NC[:, seen_C], logits_NC[:, ~seen_C]
    margins = (seen_logits.max(axis=1) - unseen_logits.max(axis=1)).astype(float)
    of_seen = seen_C[truth_N]
    right_if_seen = columns[seen_C][seen_logits.argmax(axis=1)] == truth_N
    right_if_unseen = columns[~seen_C][unseen_logits.argmax(axis=1)] == truth_N
    edges, place = np.unique(margins, return_inverse=True)
    share = class_shares(truth_N)
    lost = np.bincount(place, share * (of_seen & right_if_seen), len(edges)) / max(share[of_seen].sum(), 1e-12)
    won = np.bincount(place, share * (~of_seen & right_if_unseen), len(edges)) / max(share[~of_seen].sum(), 1e-12)
    seen = np.concatenate([[0.0], np.cumsum(lost)])
    return Curve(edges, seen[-1] - seen, np.concatenate([[0.0], np.cumsum(won)]))


def class_shares(truth_N: np.ndarray) -> np.ndarray:
    """A weight for each image (N,) that makes a weighted sum of rights the sum of the classes' accuracies."""
    return 1.0 / np.bincount(truth_N)[truth_N]


def class_accuracy(right_N: np.ndarray, truth_N: np.ndarray) -> float:
    """Mean over the classes that occur of the share of their images that are right."""
    share = class_shares(truth_N)
    return float((share * right_N).sum() / share.sum())
