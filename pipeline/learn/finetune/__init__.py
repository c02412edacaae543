"""Fine-tuning an image tower: pixels and labels in, weights out. Which images, and what becomes of the weights, is the
business of `training`.

Everything random is a function of the recipe's seed and of the place in the run: the order of an epoch, the
augmentation of an image, the dropout of a step. So the state that a checkpoint needs is weights, optimiser, scaler
and history, and a resumed run takes the very steps of an uninterrupted one.

Shape suffixes: N images, B images of a batch, C classes, D feature dimensions, S pixels of a side.
"""

import numpy as np


def seed_of(*place: int) -> int:
    """A seed of 63 bits for a place, e.g. (seed, epoch, number): other places, independent random numbers."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)
