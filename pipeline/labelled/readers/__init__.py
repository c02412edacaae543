"""Labelled data sets in the form they have on disk: rows of image, class name and split.

A format is a function `(path, argument...) -> iterable of Row` with `@reader`; the arguments' annotations are what a
recipe may set. To add one, write a file here, or register a function anywhere before the data set is read.
"""

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted
from PIL import Image

from ...core.digests import FileDigests
from ...core.errors import Damaged, NotFound, UserError, did_you_mean
from ...core.registry import Registry, import_modules
from ...images.decoding import DamagedImage, Decoded, Policy
from ...images.decoding import read as read_image
from ...recipes import Dataset

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
ALL = "all"  # the split of data that has none

READERS = Registry("reader", given=1)  # path
reader = READERS.register


class Row(NamedTuple):
    """One image. `id` tells it apart from every other image in `file`.

    `read` gets it out of a file of many: its own file's bytes, or the image where it is not stored as a file.
    """

    id: str
    class_name: str
    split: str
    file: Path
    read: Callable[[], bytes | Image.Image] | None = None


@dataclass(frozen=True)
class Samples:
    """Rows as the images of a task."""

    rows: tuple[Row, ...]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(row.id for row in self.rows)

    def open(self, number: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        """As `decoding.read` gives it; DamagedImage names one that cannot be decoded."""
        row = self.rows[number]
        if row.read is None:
            return read_image(row.file, draft_size, policy)
        name = f"{row.id} in {row.file}"
        try:
            source = row.read()
        except (OSError, ValueError) as error:
            raise DamagedImage(name, str(error)) from None
        return read_image(source, draft_size, policy, name)

    def file(self, number: int) -> str | None:
        row = self.rows[number]
        return str(row.file) if row.read is None else None

    def contents(self, digests: FileDigests) -> list[str]:
        """Content digest of each image's file (and where in it). UserError names the files that are not there."""
        files = {row.file for row in self.rows}
        absent = natsorted(str(file) for file in files if not file.is_file())
        if absent:
            raise NotFound(
                f"{len(absent)} images that the data set lists are not there: {', '.join(absent[:5])}"
                f"{', ...' if absent[5:] else ''}"
            )
        known = {file: digests.of(file) for file in files}
        return [known[row.file] + (f" {row.id}" if row.read else "") for row in self.rows]


def read(recipe: Dataset, path: Path, where: str) -> tuple[Row, ...]:
    """All rows of all splits. UserError, naming `where` the recipe is, when the data is not what it says."""
    function, options = READERS.bind(recipe.reader, f"{where}: reader")
    if not path.exists():
        raise NotFound(f"{where}: no data at {path}. Put it there or say where: DATA=path")
    try:
        rows = tuple(function(path, **options))
    except UnicodeDecodeError as error:
        raise Damaged(f"{where}: reader {recipe.reader[0]}: text of {path} is not UTF-8: {error.reason}") from None
    if not rows:
        raise NotFound(f"{where}: reader {recipe.reader[0]} finds no labelled images in {path}")
    return rows


def class_names(recipe: Dataset, rows: tuple[Row, ...], where: str) -> dict[str, str]:
    """{published name: the name prompts use} of all classes, in natural order of the published names."""
    published = natsorted({row.class_name for row in rows})
    unknown = [name for name in recipe.classes if name not in published]
    if unknown:
        raise NotFound(f"{where}: classes: the data has no class {unknown[0]!r}.{did_you_mean(unknown[0], published)}")
    names = {name: recipe.classes.get(name) or cleaned(name) for name in published}
    if all(name.isupper() for name in published):  # a set in capitals, not one with an acronym
        names = {name: recipe.classes.get(name) or string.capwords(text) for name, text in names.items()}
    if len(published) < 2:
        raise UserError(f"{where}: only one class: {published}")
    owners: dict[str, str] = {}
    for name, text in names.items():
        if owners.setdefault(text, name) != name:
            raise UserError(
                f"{where}: classes {owners[text]!r} and {name!r} are both called {text!r}; "
                f"tell them apart with 'classes: {{{name}: another name}}'"
            )
    return names


def cleaned(class_name: str) -> str:
    """A published class name as a prompt can use it: '006.Least_Auklet' -> 'Least Auklet'."""
    return " ".join(re.sub(r"^\d+\.", "", class_name).replace("_", " ").split()) or class_name


def is_junk(name: str) -> bool:
    """What file managers and archives leave in folders: .DS_Store, @eaDir, __MACOSX."""
    return name.startswith((".", "@", "__"))


def lines(path: Path, what: str) -> Iterator[list[str]]:
    """The words of each line of a text file of a published layout; UserError when the file is not there."""
    if not path.is_file():
        raise NotFound(f"{path.parent}: no {path.name}; {what}")
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield line.split(maxsplit=1)


import_modules(__name__)  # the readers register themselves
