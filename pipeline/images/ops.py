"""Images: natural order, and the registered pixel ops that a preprocess recipe is made of.

An op is a short function `op(image, size, argument...) -> image` on 8-bit RGB PIL images; `size` is the
recipe's. To add one, write it here with `@op`; its annotations are what a recipe's argument is checked against.
"""

import functools
import glob
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
from natsort import natsorted
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field

from ..core.digests import FileDigests
from ..core.errors import UserError
from ..core.registry import bind, find, register
from ..recipes import Preprocess
from . import super_resolution, views
from .decoding import Decoded, Policy, read
from .super_resolution import Network

EXTENSIONS = {
    ".jpg",
    ".jpeg",
    ".jfif",
    ".jp2",
    ".png",
    ".apng",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".avif",
    ".heic",
    ".heif",
}
UNREADABLE = "unreadable"  # stands for the content of a file that cannot be read
LONGEST = 64  # shorter sides; of an image still longer only the middle is resized
LARGEST_SQUARE = 8192  # pixels a side; an image that is longer is reduced before it is padded

Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

OPS: dict[str, Callable] = {}


class Images(Protocol):
    """Rows of images, wherever they lie."""

    ids: tuple[str, ...]

    def open(self, row: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        """As `decoding.read` gives it; DamagedImage names one that cannot be decoded."""

    def contents(self, digests: FileDigests) -> list[str]:
        """What each image is, without decoding any: equal text, equal image; UNREADABLE for no readable file."""


@dataclass(frozen=True)
class ImageFiles:
    """The images of a competition in natural order (2.jpg before 10.jpg); ids are paths below `folder`."""

    folder: Path
    ids: tuple[str, ...]
    ignored: int

    def paths(self) -> list[str]:
        return [os.path.join(self.folder, name) for name in self.ids]

    def open(self, row: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        return read(os.path.join(self.folder, self.ids[row]), draft_size, policy)

    def contents(self, digests: FileDigests) -> list[str]:
        def content(path: str) -> str:
            try:
                return digests.of(path)
            except OSError:
                return UNREADABLE

        return [content(path) for path in self.paths()]


def list_images(pattern: str, where: str) -> ImageFiles:
    """The image files of a folder, or of a glob such as 'data/**/*.jpg'.

    Hidden and other non-image files (.DS_Store, Thumbs.db, ...) are counted as ignored. UserError, naming
    `where` the pattern was written, when there is no image.
    """
    if glob.has_magic(pattern):
        parts = Path(pattern).parts
        fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
        folder = Path(*fixed)
        found = glob.glob(os.path.join(*parts[len(fixed) :]), root_dir=folder, recursive=True)
        files = [name for name in found if os.path.isfile(os.path.join(folder, name))]
    else:
        folder = Path(pattern)
        if not folder.is_dir():
            raise UserError(f"{where}: no image folder {pattern}. Put the images there or say where: DATA=path")
        files = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    images = [name for name in files if is_image(name)]
    if not images:
        below = next((path for path in folder.glob("*/*") if is_image(path.name)), None)
        hint = f". There are some deeper; give a glob: {folder}/**/*{below.suffix}" if below else ""
        raise UserError(f"{where}: no images in {pattern}{hint}")
    return ImageFiles(folder, tuple(natsorted(images)), len(files) - len(images))


def is_image(name: str) -> bool:
    """By its extension; hidden files (.DS_Store, ._1.jpg) are none."""
    base = os.path.basename(name)
    return os.path.splitext(base)[1].lower() in EXTENSIONS and not base.startswith(".")


def op(function: Callable) -> Callable:
    """Register a pixel op under its function's name."""
    return register(OPS, uses="image")(function)


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


@op
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


@dataclass(frozen=True)
class Place:
    """Where the files that recipes name lie, and where their networks run."""

    root: Path = Path()
    device: str = "cpu"

    def loader(self, arguments: dict, where: str) -> Callable[[], Network]:
        """How op upscale gets its network: loaded when the first image needs it, and shared by all threads."""
        if {"factor", "method"} & set(arguments):
            raise UserError(f"{where}: upscale: a network has its own factor and method; leave them out")
        path = self.root / arguments["network"]
        super_resolution.check_file(path, where)
        return functools.partial(super_resolution.network, path, self.device, where)


def networks(recipe: Preprocess) -> list[str]:
    """The files of the networks that a recipe's ops run."""
    return [
        argument["network"]
        for name, argument in recipe.ops
        if name == "upscale" and isinstance(argument, dict) and argument.get("network")
    ]


def compile_recipe(recipe: Preprocess, where: str, place: Place = Place()) -> Callable[[Image.Image], np.ndarray]:  # noqa: B008
    """A preprocess recipe as a function: RGB image -> uint8 array (3, size, size), with views (V, 3, size, size).

    UserError, naming `where` the recipe is, for unknown ops, wrong arguments and absent files.
    """
    steps = []
    for number, (name, argument) in enumerate(recipe.ops):
        at = f"{where}: ops.{number}"
        function = find(OPS, "op", name, at)
        arguments = bind(function, 2, name, argument, at)
        if arguments.get("network"):
            arguments = {**arguments, "network": place.loader(arguments, at)}
        steps.append((function, arguments))

    def apply(image: Image.Image) -> np.ndarray:
        for function, arguments in steps:
            image = function(image, recipe.size, **arguments)
        if image.size != (recipe.size, recipe.size):
            raise UserError(
                f"{where}: the ops give {image.size[0]}x{image.size[1]} pixels, not "
                f"{recipe.size}x{recipe.size}; add 'center_crop' or 'resize: squash'"
            )
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    if not recipe.views:
        return apply
    see = views.compile_views(recipe, where)
    return lambda image: np.stack([apply(view) for view in see(image)])
