"""What a sweep tries: the candidates of a grid, or a seeded random part of it, and how far they are from each other."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


def simplex(parts: int, steps: int) -> list[tuple[float, ...]]:
    """All ways to share 1 among `parts` in multiples of 1/`steps`: (steps + parts - 1 choose parts - 1) of them."""
    bars = itertools.combinations(range(steps + parts - 1), parts - 1)
    edges = ((-1, *bar, steps + parts - 1) for bar in bars)
    return [tuple((b - a - 1) / steps for a, b in itertools.pairwise(edge)) for edge in edges]


@dataclass(frozen=True)
class Grid:
    """{key: its values}: candidates are tuples of value numbers, the last key varying fastest."""

    values: dict[str, Sequence]

    @property
    def size(self) -> int:
        return math.prod(len(values) for values in self.values.values())

    def candidates(self, most: int | None = None, seed: int = 0) -> list[tuple[int, ...]]:
        """All of them in the grid's order, or `most` of them drawn without repetition, in the same order."""
        if most is None or most >= self.size:
            return list(itertools.product(*(range(len(values)) for values in self.values.values())))
        drawn = sorted(random.Random(seed).sample(range(self.size), most))
        shape = tuple(len(values) for values in self.values.values())
        return [tuple(map(int, np.unravel_index(number, shape))) for number in drawn]

    def of(self, candidate: tuple[int, ...]) -> dict:
        """{key: value} of a candidate."""
        return {key: values[n] for (key, values), n in zip(self.values.items(), candidate, strict=True)}


def neighbours(candidates: Sequence[tuple[int, ...]], grid: Grid, most: int) -> Iterator[np.ndarray]:
    """For each candidate the numbers of the nearest others, at most `most`; ties go to the earlier ones.

    Two candidates are one step apart for each key in which they differ; values that are numbers, or lists of numbers
    (member weights), count by their distance as a share of the widest one.
    """
    if len(candidates) == 1:
        yield np.zeros(0, int)
        return
    steps = [_distances(values) for values in grid.values.values()]
    chosen = np.array(candidates)
    for number, candidate in enumerate(candidates):
        apart = sum(step[candidate[key], chosen[:, key]] for key, step in enumerate(steps))
        apart[number] = np.inf
        yield np.argsort(apart, kind="stable")[: min(most, len(candidates) - 1)]


def _distances(values: Sequence) -> np.ndarray:
    """Between the values of one key, 0 to 1."""
    numbers = [value if isinstance(value, tuple) else (value,) for value in values]
    if all(value and all(isinstance(v, float) for v in value) for value in numbers):
        points = np.array(numbers)
        apart = np.abs(points[:, None] - points[None]).sum(axis=2)
        return apart / max(apart.max(), 1e-12)
    return 1.0 - np.eye(len(values))
