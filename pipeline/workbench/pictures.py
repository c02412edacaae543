"""The pictures that the page asks for, always by row: sheets of thumbnails, one image, one as a model sees it."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..chain.task import Task
from ..core.console import progress
from ..core.errors import UserError
from ..core.files import atomic_file
from ..images.ops import compile_recipe

TILE, ACROSS = 96, 8  # pixels of a thumbnail, thumbnails in a row and in a column of a sheet
SHEET = ACROSS**2
BAKED_FIRST = 20_000  # images whose sheets are made before the page opens; of more they are made as they are seen
LARGE = 1024  # pixels of the longer side of one image


@dataclass(frozen=True)
class Pictures:
    """Those of one task; `folder` keeps the sheets of its present images, and of no others."""

    task: Task
    folder: Path

    @cached_property
    def sheets(self) -> Path:
        """Where the sheets of these very images lie."""
        return self.folder / f"sheets-{TILE}-{self.task.images_digest()}"

    @property
    def count(self) -> int:
        return -(-len(self.task.images.ids) // SHEET)

    def bake(self) -> None:
        """Make what is missing, unless there are so many that it would take long."""
        for other in self.folder.glob("sheets-*"):
            if other != self.sheets:
                shutil.rmtree(other, ignore_errors=True)
        missing = [number for number in range(self.count) if not self._sheet(number).exists()]
        if len(missing) * SHEET > BAKED_FIRST:
            return
        with ThreadPoolExecutor(self.task.threads) as pool, progress("thumbnails", "sheet", len(missing)) as bar:
            for _ in pool.map(self.sheet, missing):
                bar.update()

    def _sheet(self, number: int) -> Path:
        return self.sheets / f"{number:06d}.jpg"

    def sheet(self, number: int) -> bytes:
        """JPEG of the thumbnails of SHEET consecutive rows; UserError for a number that there is none of."""
        if not 0 <= number < self.count:
            raise UserError(f"no sheet {number}")
        path = self._sheet(number)
        if not path.exists():
            rows = range(number * SHEET, min((number + 1) * SHEET, len(self.task.images.ids)))
            whole = Image.new("RGB", (ACROSS * TILE, ACROSS * TILE), "grey")
            for at, row in enumerate(rows):
                whole.paste(self._thumbnail(row), (at % ACROSS * TILE, at // ACROSS * TILE))
            with atomic_file(path) as temporary:
                whole.save(temporary, "JPEG", quality=80)
        return path.read_bytes()

    def _thumbnail(self, row: int) -> Image.Image:
        return ImageOps.pad(self._open(row, TILE), (TILE, TILE), color="grey")

    def _open(self, row: int, side: int | None) -> Image.Image:
        """A grey one where there is no picture."""
        if not 0 <= row < len(self.task.images.ids):
            raise UserError(f"no image {row}")
        try:
            image = self.task.images.open(row, side, self.task.policy).image
        except UserError:
            image = None
        return image or Image.new("RGB", (TILE, TILE), "grey")

    def large(self, row: int) -> bytes:
        """JPEG of one image, LARGE pixels at most."""
        image = self._open(row, LARGE)
        image.thumbnail((LARGE, LARGE))
        return _encoded(image, "JPEG")

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of an image."""
        return self._open(row, None).size

    def preprocessed(self, row: int, name: str) -> bytes:
        """PNG of an image after a preprocess recipe, its views side by side."""
        recipe, where = self.task.project.preprocess(name), f"preprocess/{name}.yaml"
        pixels = np.asarray(compile_recipe(recipe, where, self.task.place)(self._open(row, recipe.draft_size)))
        views = pixels[None] if pixels.ndim == 3 else pixels
        return _encoded(Image.fromarray(np.concatenate(list(views.transpose(0, 2, 3, 1)), axis=1)), "PNG")


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=88)
    return buffer.getvalue()
