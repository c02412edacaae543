"""Augmentations: each a function `name(size, argument...)` that makes a transform of uint8 pixels (3, S, S).

They draw from torch's global random numbers, which are seeded for each image: see `Augmented`. To add one, write it
here with `@augmentation`; its annotations are what a recipe's argument is checked against.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from ...core.registry import Registry
from . import seed_of

Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=2)]
AUGMENTATIONS = Registry("augmentation", given=1)  # size
augmentation = AUGMENTATIONS.register


def _v2():
    from ...core._torchvision import allow_import

    allow_import()
    from torchvision.transforms import v2

    return v2


@augmentation
def crop(size: int, smallest: Annotated[float, Field(gt=0, le=1)] = 0.6):
    """A random part of the image, between `smallest` and all of its area, enlarged to its size."""
    return _v2().RandomResizedCrop(size, scale=(smallest, 1.0), interpolation=_v2().InterpolationMode.BICUBIC)


@augmentation
def hflip(size: int, probability: Share = 0.5):
    """Mirrored left to right."""
    return _v2().RandomHorizontalFlip(probability)


@augmentation
def rotate(size: int, degrees: Annotated[float, Field(gt=0, le=180)]):
    """By up to `degrees` either way; corners become black."""
    return _v2().RandomRotation(degrees, interpolation=_v2().InterpolationMode.BILINEAR)


@augmentation
def colour(size: int, strength: Strength = 0.3, hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0):
    """Brightness, contrast and saturation by factors within 1 ± strength; hue by a share of the colour wheel."""
    return _v2().ColorJitter(strength, strength, strength, hue)


@augmentation
def rand_augment(
    size: int, operations: Annotated[int, Field(gt=0)] = 2, magnitude: Annotated[int, Field(ge=0, le=30)] = 9
):
    """RandAugment (Cubuk et al. 2019, arXiv:1909.13719)."""
    return _v2().RandAugment(operations, magnitude)


@augmentation
def erase(size: int, probability: Share = 0.25):
    """A random rectangle becomes black (Zhong et al. 2017, arXiv:1708.04896)."""
    return _v2().RandomErasing(probability)


def check(named: Sequence[tuple[str, Any]], where: str) -> None:
    """UserError for an unknown augmentation or a wrong argument."""
    for number, one in enumerate(named):
        AUGMENTATIONS.bind(one, f"{where}: augment.{number}")


class Augmented(Dataset):
    """Training images: `(epoch, place, row)` gives uint8 (3, S, S), augmented by `place` in the epoch."""

    def __init__(self, pixels: Callable[[int], Tensor], size: int, named: Sequence[tuple[str, Any]], seed: int):
        self.pixels, self.seed = pixels, seed
        found = (AUGMENTATIONS.bind(one, "augment") for one in named)
        self.steps = [function(size, **options) for function, options in found]

    def __getitem__(self, item: tuple[int, int, int]) -> Tensor:
        epoch, place, row = item
        image = self.pixels(row)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, 1, epoch, place))
            for step in self.steps:
                image = step(image)
        return image
