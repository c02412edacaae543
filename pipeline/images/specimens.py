"""Odd pictures, drawn: what two ways to prepare an image may see differently, and test files are made of."""

import numpy as np
from PIL import Image


def noise(*shape: int, top: int = 256, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    """Values 0..top-1 of this shape, always the same."""
    return np.random.default_rng([seed, *shape]).integers(0, top, shape).astype(dtype)


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """Nine colours that flow into each other."""
    return Image.fromarray(noise(3, 3, 3, seed=seed)).resize((width, height), Image.Resampling.BICUBIC)


def pictures() -> dict[str, Image.Image]:
    """RGB pictures of sizes and contents on which resizing, cropping and rounding differ, by name."""
    stripes = np.zeros((150, 200, 3), np.uint8)
    stripes[:, ::3], stripes[::7] = 255, (200, 30, 90)
    return {
        "smooth": smooth(640, 480),
        "upright": smooth(333, 500, seed=1),
        "wide": smooth(900, 120, seed=2),
        "tall": smooth(90, 700, seed=3),
        "small": smooth(31, 17, seed=4),
        "one pixel": Image.fromarray(noise(1, 1, 3)),
        "a row": Image.fromarray(noise(3, 90, 3)),
        "noise": Image.fromarray(noise(301, 260, 3)),
        "stripes": Image.fromarray(stripes),
        "square": smooth(256, 256, seed=5),
    }
