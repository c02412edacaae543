"""Class mixes that label-free methods are measured on: which rows of a labelled set to take."""

from collections.abc import Callable

import numpy as np
import torch


def some_classes(number: int, most: int | None = None) -> Callable:
    """All images of that many classes, or `most` of them, none of the others."""

    def take(sizes_C: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        sizes_C = np.where(draw.permutation(len(sizes_C)) < number, sizes_C, 0)
        return sizes_C if most is None else few(most)(sizes_C, draw)

    return take


def skewed(ratio: float) -> Callable:
    """From all of one class down to a share of 1 / ratio of the last, in random order."""

    def take(sizes_C: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        place_C = draw.permutation(len(sizes_C))
        return np.maximum(1, np.round(sizes_C * ratio ** (-place_C / (len(sizes_C) - 1)))).astype(int)

    return take


def dominated(sizes_C: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """All of one class, a tenth of each other."""
    first = draw.integers(len(sizes_C))
    return np.where(np.arange(len(sizes_C)) == first, sizes_C, np.maximum(1, sizes_C // 10))


def dirichlet(concentration: float) -> Callable:
    """Shares drawn from a Dirichlet; as many images as there are of them, or about 60."""

    def take(sizes_C: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        share_C = draw.dirichlet(np.full(len(sizes_C), concentration))
        number = max(60.0, float((sizes_C / share_C.clip(1e-9)).min()))
        return np.minimum(sizes_C, np.round(share_C * number).astype(int))

    return take


def few(number: int) -> Callable:
    """That many images, whatever their class."""

    def take(sizes_C: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        return draw.multivariate_hypergeometric(sizes_C, min(number, int(sizes_C.sum())))

    return take


MIXES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "all": lambda sizes_C, draw: sizes_C,
    "one class": some_classes(1),
    "two classes": some_classes(2),
    "three classes": some_classes(3),
    "four classes": some_classes(4),
    "skewed 10:1": skewed(10),
    "skewed 30:1": skewed(30),
    "one dominates": dominated,
    "30 images": few(30),
    "60 images": few(60),
    "150 images": few(150),
    "Dirichlet(1)": dirichlet(1.0),
    "Dirichlet(0.3)": dirichlet(0.3),
    "60 of one class": some_classes(1, 60),
    "60 of two classes": some_classes(2, 60),
    "60 of three classes": some_classes(3, 60),
}


def rows(truth_N: torch.Tensor, mix: str, seed: int) -> torch.Tensor:
    """The rows of one draw of a mix, in order."""
    draw = np.random.default_rng(seed)
    own = [draw.permutation(np.flatnonzero(truth_N.numpy() == label)) for label in range(int(truth_N.max()) + 1)]
    take_C = MIXES[mix](np.array([len(rows) for rows in own]), draw)
    return torch.from_numpy(np.sort(np.concatenate([rows[:take] for rows, take in zip(own, take_C, strict=True)])))
