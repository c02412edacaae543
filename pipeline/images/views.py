"""Test-time views: the registered ways in which a preprocess recipe may look at an image more than once.

A view is a short function `view(image, argument...) -> [image, ...]` on the RGB image before the recipe's ops. To
add one, write it here with `@view`; its annotations are what a recipe's argument is checked against.
"""

from collections.abc import Callable
from typing import Annotated

from PIL import Image, ImageOps
from pydantic import Field

from ..core.errors import UserError
from ..core.registry import Registry
from ..recipes import Preprocess

Degrees = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]

VIEWS = Registry("view", given=1, uses="image")
view = VIEWS.register


@view
def identity(image: Image.Image) -> list[Image.Image]:
    """The image itself."""
    return [image]


@view
def hflip(image: Image.Image) -> list[Image.Image]:
    """Mirrored left to right."""
    return [ImageOps.mirror(image)]


@view
def rotate(image: Image.Image, degrees: Degrees) -> list[Image.Image]:
    """Turned anticlockwise about its middle, keeping its size; the corners that come in are black."""
    return [image.rotate(degrees, Image.Resampling.BICUBIC)]


@view
def zoom(image: Image.Image, share: Share) -> list[Image.Image]:
    """The middle `share` of its width and height."""
    return [_part(image, share, 0.5, 0.5)]


@view
def five_crop(image: Image.Image, share: Share = 0.8) -> list[Image.Image]:
    """The four corners and the middle, each `share` of its width and height."""
    return [_part(image, share, x, y) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5))]


def _part(image: Image.Image, share: float, x: float, y: float) -> Image.Image:
    width, height = max(1, round(share * image.width)), max(1, round(share * image.height))
    left, top = round(x * (image.width - width)), round(y * (image.height - height))
    return image.crop((left, top, left + width, top + height))


def compile_views(recipe: Preprocess, where: str) -> Callable[[Image.Image], list[Image.Image]]:
    """A recipe's views as a function: RGB image -> V images.

    UserError, naming `where` the recipe is, for unknown views and wrong arguments.
    """
    steps = [VIEWS.bind(named, f"{where}: views.{number}") for number, named in enumerate(recipe.views)]

    def see(image: Image.Image) -> list[Image.Image]:
        return [seen for function, arguments in steps for seen in function(image, **arguments)]

    seen = _count(see)
    if recipe.keep_views and recipe.keep_views > seen:
        raise UserError(f"{where}: keep_views: {recipe.keep_views}, but there are only {seen} views")
    return see


def _count(see: Callable[[Image.Image], list[Image.Image]]) -> int:
    return len(see(Image.new("RGB", (16, 16))))


def count(recipe: Preprocess, where: str) -> int:
    """How many views of each image a recipe makes: how many times the forward passes, and pixels, of one without."""
    return _count(compile_views(recipe, where)) if recipe.views else 1
