"""Which images are trained on and which only choose: stratified, by seed. Labels in, rows out."""

import numpy as np


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Mask (N,) of the validation images: `share` of each class, at least one where the class has two or more."""
    random, mask = np.random.default_rng([seed, 0]), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        mask[rows[: max(round(share * len(rows)), min(1, len(rows) - 1))]] = True
    return mask


def shots(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Rows of k images of each class, class by class; those of a smaller k are among them.

    A class with fewer gives each of its images once, and the rest drawn from them with replacement.
    """
    random, chosen = np.random.default_rng([seed, 1]), []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        own = np.random.default_rng([seed, 2, int(label)])
        chosen.append(np.concatenate([rows[:k], own.choice(rows, max(0, k - len(rows)))]))
    return np.concatenate(chosen)


def at_most(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Rows of k images of each class, or of all it has; ascending."""
    random = np.random.default_rng([seed, 3])
    parts = [random.permutation(np.flatnonzero(labels == label))[:k] for label in np.unique(labels)]
    return np.sort(np.concatenate(parts))
