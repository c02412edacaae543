"""The registered pixel ops that a preprocess recipe is made of, and the recipe as a function.

An op is a short function `op(image, size, argument...) -> image` on 8-bit RGB PIL images; `size` is the
recipe's. To add one, write it here with `@op`; its annotations are what a recipe's argument is checked against.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field

from ..core.errors import Mismatch
from ..core.registry import Registry, is_everywhere
from ..recipes import Preprocess
from .upscale import Network, Place, opened
from .views import compile_views

LONGEST = 64  # shorter sides; of an image still longer only the middle is resized
LARGEST_SQUARE = 8192  # pixels a side; an image that is longer is reduced before it is padded

Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

# traits: the argument that names a `file` of the project, whose content decides the pixels; `opened(place, arguments,
# where)` checks that file and returns what the op gets in place of its name
OPS = Registry("op", given=2, uses="image", file=None, opened=None)
op = OPS.register


@op
def resize(
    image: Image.Image,
    size: int,
    mode: Literal["squash", "shortest"] = "squash",
    interpolation: Interpolation = "bicubic",
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> Image.Image:
    """To size x size ignoring the aspect (squash), or its shorter side to size (shortest).

    With crop_pct below 1 the target is floor(size / crop_pct), of which center_crop keeps the middle. Of an image
    longer than LONGEST times its shorter side only the middle is kept: 1x20000 would become a million pixels long.
    """
    size = math.floor(size / crop_pct)
    if mode == "shortest":
        image = _middle(image, LONGEST * min(image.size))
        width, height = image.size
        scale_to = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    else:
        scale_to = (size, size)
    return image.resize(scale_to, Image.Resampling[interpolation.upper()])


def _middle(image: Image.Image, longest: int) -> Image.Image:
    """Without the ends of its longer side, where that has more than `longest` pixels."""
    width, height = image.size
    kept_width, kept_height = min(width, longest), min(height, longest)
    if (kept_width, kept_height) == image.size:
        return image
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return image.crop((left, top, left + kept_width, top + kept_height))


@op
def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle size x size pixels; smaller images get a black border."""
    width, height = image.size
    if width < size or height < size:
        left, top = max(0, (size - width) // 2), max(0, (size - height) // 2)
        border = (left, top, max(0, (size - width + 1) // 2), max(0, (size - height + 1) // 2))
        image = ImageOps.expand(image, border)
        width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


@op
def pad_square(image: Image.Image, size: int, color: str = "black") -> Image.Image:
    """A border on the shorter side that makes the image square, keeping all of it; size does not matter."""
    if max(image.size) > LARGEST_SQUARE and image.width != image.height:
        image = image.copy()
        image.thumbnail((LARGEST_SQUARE, LARGEST_SQUARE))
    side = max(image.size)
    return ImageOps.pad(image, (side, side), color=color)


@op
def sharpen(image: Image.Image, size: int, factor: Factor) -> Image.Image:
    """Pillow's Sharpness: 1 is the image itself, 0 smoothed, 2 sharpened."""
    return ImageEnhance.Sharpness(image).enhance(factor)


@op
def autocontrast(image: Image.Image, size: int) -> Image.Image:
    """Stretch each channel to 0..255."""
    return ImageOps.autocontrast(image)


@op
def equalize(image: Image.Image, size: int) -> Image.Image:
    """Even out each channel's histogram."""
    return ImageOps.equalize(image)


@op
def contrast(image: Image.Image, size: int, factor: Factor) -> Image.Image:
    """Around the mean grey; 1 changes nothing."""
    return ImageEnhance.Contrast(image).enhance(factor)


@op
def brightness(image: Image.Image, size: int, factor: Factor) -> Image.Image:
    """1 changes nothing, 0 is black."""
    return ImageEnhance.Brightness(image).enhance(factor)


@op
def saturation(image: Image.Image, size: int, factor: Factor) -> Image.Image:
    """1 changes nothing, 0 is grey."""
    return ImageEnhance.Color(image).enhance(factor)


@op
def grayscale(image: Image.Image, size: int) -> Image.Image:
    """Grey in all three channels."""
    return image.convert("L").convert("RGB")


@op
def gaussian_blur(
    image: Image.Image,
    size: int,
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)],
    kernel_size: Annotated[int, Field(gt=0)] = 5,
) -> Image.Image:
    """torchvision's Gaussian blur, sigma in pixels, odd kernel_size."""
    from ..core._torchvision import allow_import

    allow_import()
    from torchvision.transforms import functional

    return functional.gaussian_blur(image, [kernel_size, kernel_size], [sigma, sigma])


@op(file="network", opened=opened)
def upscale(
    image: Image.Image,
    size: int,
    factor: Annotated[float, Field(gt=1, le=16)] = 2.0,
    method: Literal["bilinear", "bicubic", "lanczos"] = "bicubic",
    network: str | Callable[[], Network] | None = None,
    tile: Annotated[int, Field(ge=16)] = 256,
    overlap: Annotated[int, Field(ge=0)] = 32,
) -> Image.Image:
    """`factor` times as large by `method`; or by a super-resolution `network`, a local file, as much as that enlarges.

    The network sees tiles of `tile` pixels and `overlap` more on each side.
    """
    if network:
        return network()(image, tile, overlap)
    enlarged = tuple(round(side * factor) for side in image.size)
    return image.resize(enlarged, Image.Resampling[method.upper()])


def _steps(recipe: Preprocess, where: str) -> Iterator[tuple[str, Callable, dict[str, Any]]]:
    """(where it is written, op, its arguments) of each op; UserError for unknown ops and wrong arguments."""
    for number, named in enumerate(recipe.ops):
        at = f"{where}: ops.{number}"
        yield at, *OPS.bind(named, at)


def files(recipe: Preprocess, root: Path, where: str) -> list[Path]:
    """The files below `root` that a recipe's ops read; UserError for an absent one."""
    found = []
    for at, function, arguments in _steps(recipe, where):
        if function.file and arguments.get(function.file):
            function.opened(Place(root), arguments, at)
            found.append(root / arguments[function.file])
    return found


def known_everywhere(recipe: Preprocess, where: str) -> bool:
    """Whether a process that starts anew knows all ops of a recipe."""
    return all(is_everywhere(function) for _, function, _ in _steps(recipe, where))


def compile_recipe(recipe: Preprocess, where: str, place: Place = Place()) -> Callable[[Image.Image], np.ndarray]:  # noqa: B008
    """A preprocess recipe as a function: RGB image -> uint8 array (3, size, size), with views (V, 3, size, size).

    UserError, naming `where` the recipe is, for unknown ops, wrong arguments and absent files.
    """
    steps = []
    for at, function, arguments in _steps(recipe, where):
        if function.file and arguments.get(function.file):
            arguments = arguments | {function.file: function.opened(place, arguments, at)}
        steps.append((function, arguments))

    def apply(image: Image.Image) -> np.ndarray:
        for function, arguments in steps:
            image = function(image, recipe.size, **arguments)
        if image.size != (recipe.size, recipe.size):
            raise Mismatch(
                f"{where}: the ops give {image.size[0]}x{image.size[1]} pixels, not "
                f"{recipe.size}x{recipe.size}; add 'center_crop' or 'resize: squash'"
            )
        # channel by channel: Pillow's own interface to numpy copies all of it three times, and puts them last
        planes = bytearray().join(image.tobytes("raw", channel) for channel in "RGB")
        return np.frombuffer(planes, np.uint8).reshape(3, recipe.size, recipe.size)

    if not recipe.views:
        return apply
    see = compile_views(recipe, where)
    return lambda image: np.stack([apply(view) for view in see(image)])
