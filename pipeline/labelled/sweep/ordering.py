"""The order of a sweep's candidates, with how sure it is: by accuracy where labels are known, else by stability.

Shape suffixes: K candidates, N images. Candidate 0 is the base.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...maths import metrics
from .grid import Grid, neighbours

SHOWN = 12  # candidates in the printed table, and so with intervals
NEAREST = 6  # of which a candidate's stability is measured
LEVEL = 0.05  # of McNemar's test, below which two candidates are told apart


@dataclass(frozen=True)
class Ordering:
    """The candidates' order, best first, a line of measures for each (by its number), and what was found, in words."""

    order: list[int]
    twins: dict[int, int]  # those of each group that label all images alike: the first in the order, how many others
    header: tuple[str, ...]
    lines: list[list[str]]
    summary: str


def _twins(order: Sequence[int], labels_KN: np.ndarray) -> dict[int, int]:
    first: dict[bytes, int] = {}
    count = Counter(first.setdefault(labels_KN[k].tobytes(), k) for k in order)
    return {k: count[k] - 1 for k in first.values()}


def by_accuracy(labels_KN: np.ndarray, truth_N: np.ndarray, differences: Sequence[int], resamples: int) -> Ordering:
    """By accuracy; of equal ones the one with fewer `differences` (K,) from the base.

    Only the candidates that are shown get an interval (paired bootstrap of the best minus it); all of them are
    compared with the best by McNemar's test.
    """
    right = labels_KN == truth_N
    accuracy = right.mean(axis=1)
    order = sorted(range(len(right)), key=lambda k: (-accuracy[k], differences[k], k))
    best = right[order[0]]
    p = [metrics.mcnemar(best, one) for one in right]
    twins = _twins(order, labels_KN)
    alike = [k for k in order if p[k] >= LEVEL]
    lines = [["", f"{accuracy[k]:.4f}", "", "", f"{p[k]:.2g}"] for k in range(len(right))]
    for k in dict.fromkeys([*list(twins)[:SHOWN], 0]):
        value, behind = (metrics.difference(*pair, resamples) for pair in ((right[k], 0 * best), (best, right[k])))
        lines[k][2:4] = f"{value.low:.4f} to {value.high:.4f}", f"{behind.low:+.4f} to {behind.high:+.4f}"
    for place, k in enumerate(order, 1):
        lines[k][0] = str(place)
    base = "the base is among them" if 0 in alike else "the base is not"
    summary = (
        f"{len(alike):,} of {len(right):,} candidates are indistinguishable from the best (McNemar's p not "
        f"below {LEVEL}); {base}. The best of many is flattered by the choice: expect less on other "
        "images."
    )
    header = ("place", "accuracy", "95 % interval", "best minus it", "p")
    return Ordering(order, twins, header, lines, summary)


def by_stability(labels_KN: np.ndarray, grid: Grid, chosen: Sequence[tuple[int, ...]]) -> Ordering:
    """By the share of labels that differ from those of the nearest candidates; beside it the base's. No accuracy.

    `chosen` are the K - 1 candidates after the base; the base comes last, it may be no point of the grid.
    """
    base = (labels_KN != labels_KN[0]).mean(axis=1)
    near = [np.nan]
    for k, others in enumerate(neighbours(chosen, grid, NEAREST), 1):
        near.append((labels_KN[others + 1] != labels_KN[k]).mean() if len(others) else 0.0)
    order = sorted(range(1, len(near)), key=lambda k: (near[k], base[k], k)) + [0]
    lines = [["", f"{near[k]:.4f}" if k else "", f"{base[k]:.4f}"] for k in range(len(near))]
    for place, k in enumerate(order, 1):
        lines[k][0] = str(place)
    summary = (
        f"No label was looked at: this is stability, not accuracy. A candidate is stable when few labels differ "
        f"from those of its {NEAREST} nearest ones; a stable one can be wrong."
    )
    return Ordering(order, _twins(order, labels_KN), ("place", "flips near it", "flips from the base"), lines, summary)
