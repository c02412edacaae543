"""Images of a task: which files a folder holds, in natural order, and how each is opened and told apart."""

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from ..core.console import warn
from ..core.digests import FileDigests, digest_of, stamp_of
from ..core.errors import NotFound, UserError
from ..core.store import Url, place
from ..core.texts import Texts, natural
from . import packed
from .decoding import Decoded, Policy, read
from .names import COUNTING, counted, is_image, is_packed
from .packed import PackedImages
from .stored import StoredImages, list_stored

INDEXES = "indexes"  # of tars and Parquet files, in the cache
UNREADABLE = "unreadable"  # stands for the content of a file that cannot be read


class Images(Protocol):
    """Rows of images, wherever they lie."""

    ids: Texts

    def open(self, row: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        """As `decoding.read` gives it; DamagedImage names one that cannot be decoded."""

    def file(self, row: int) -> str | None:
        """The file that an image is all of, where it has one here: any process can read it with `decoding.read`."""

    def contents(self, digests: FileDigests) -> Sequence[str]:
        """What each image is, without decoding any: equal text, equal image; UNREADABLE for no readable file."""

    def stamp(self) -> str:
        """What changes when an image does, found without reading any."""


@dataclass(frozen=True)
class ImageFiles:
    """The images of a competition in natural order (2.jpg before 10.jpg); ids are paths below `folder`.

    `left_out` is what was found beside them: other files, and what is called like an image but is no file.
    """

    folder: Path
    ids: Texts
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, names: Iterable[str], left_out: Iterable[str] = ()) -> Self:
        return cls(folder, Texts.of(names), tuple(left_out))

    @cached_property
    def deeper(self) -> int:
        """Images in sub-folders of a folder whose own images alone are listed."""
        if any(os.sep in name for name in self.ids):
            return 0
        below = (names for place, _, names in os.walk(self.folder) if place != str(self.folder))
        return sum(is_image(name) for names in below for name in names)

    def paths(self) -> list[str]:
        return list(self._paths())

    def _paths(self) -> Iterator[str]:
        return (os.path.join(self.folder, name) for name in self.ids)

    def open(self, row: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        return read(self.file(row), draft_size, policy)

    def file(self, row: int) -> str:
        return os.path.join(self.folder, self.ids[row])

    def contents(self, digests: FileDigests) -> Texts:
        def content(path: str) -> str:
            try:
                return digests.of(path)
            except OSError:
                return UNREADABLE

        return Texts.of(content(path) for path in self._paths())

    def stamp(self) -> str:
        def seen(path: str) -> list:
            try:
                return stamp_of(os.stat(path))
            except OSError:
                return [UNREADABLE]

        return digest_of({name: seen(path) for name, path in zip(self.ids, self._paths(), strict=True)})


def images_of(source: str, root: Path, where: str) -> ImageFiles | StoredImages | PackedImages:
    """The images of a folder or pattern from `root`, or of a URL; UserError, naming `where` it was written."""
    if COUNTING.search(source):
        return _counted(source, root, where)
    found, indexes = place(source, root), root / "cache" / INDEXES
    if isinstance(found, Url):
        return list_stored(found, where, indexes)
    return list_images(str(found), where, indexes)


def _counted(source: str, root: Path, where: str) -> PackedImages:
    """Those of files that a pattern such as {00..15}.tar counts."""
    names = counted(source)
    if not names:
        raise UserError(f"{where}: {source}: braces count upwards, the smaller number first")
    if odd := next((name for name in names if not is_packed(name)), None):
        raise UserError(f"{where}: {source}: braces count tars or Parquet files, and {odd} is none")
    folder = place(before_pattern(source), root)
    length = len(before_pattern(source).rstrip("/")) + 1 if "/" in source else 0
    return packed.listed(folder, [name[length:] for name in names], (), root / "cache" / INDEXES, where)


def before_pattern(source: str) -> str:
    """The folder that a pattern with braces begins with."""
    return source[: COUNTING.search(source).start()].rpartition("/")[0]


def is_there(source: str, root: Path) -> bool:
    """Whether there is such a folder; of a URL it is found out when it is listed."""
    found = place(before_pattern(source) if COUNTING.search(source) else source, root)
    if isinstance(found, Url):
        return True
    return list_folder(str(found)).is_dir() or (is_packed(found.name) and found.is_file())


def list_images(pattern: str, where: str, indexes: Path | None = None) -> ImageFiles | PackedImages:
    """The image files of a folder, or of a glob such as 'data/**/*.jpg'; those in tars or Parquet where there are none.

    Hidden and other non-image files (.DS_Store, Thumbs.db, ...) are left out. UserError, naming `where` the pattern was
    written, when there is no image. What is learnt of tars is kept in `indexes`.
    """
    folder, files = _found(pattern, where)
    images = [name for name, is_file in files.items() if is_file and is_image(name)]
    packs = [] if images else natural(name for name, is_file in files.items() if is_file and is_packed(name))
    if packs and indexes:
        return packed.listed(folder, packs, natural(files.keys() - set(packs)), indexes, where)
    if not images:
        below = next((path for path in folder.glob("*/*") if is_image(path.name) or is_packed(path.name)), None)
        hint = f". There are some deeper; give a glob: {folder}/**/*{below.suffix}" if below else ""
        raise NotFound(f"{where}: no images in {pattern}{hint}")
    others = [name for name, is_file in files.items() if is_file != is_image(name)]
    return ImageFiles.of(folder, natural(images), natural(others))


def _found(pattern: str, where: str) -> tuple[Path, dict[str, bool]]:
    """A folder, and what a pattern finds below it: {name: whether it is a file}."""
    folder = Path(pattern)
    if glob.has_magic(pattern):
        folder = list_folder(pattern)
        below = Path(pattern).parts[len(folder.parts) :]
        found = glob.glob(os.path.join(*below), root_dir=folder, recursive=True)
        return folder, {name: os.path.isfile(os.path.join(folder, name)) for name in found}
    if folder.is_file() and is_packed(folder.name):
        return folder.parent, {folder.name: True}
    if folder.is_file():
        raise UserError(f"{where}: {pattern} is a file; give the folder of the images, or a glob such as '*.jpg'")
    if not folder.is_dir():
        variable = "DATA" if ": " in where else where  # a recipe's path is overridden by DATA=
        raise NotFound(f"{where}: no image folder {pattern}. Put the images there or say where: {variable}=path")
    return folder, {entry.name: entry.is_file() for entry in os.scandir(folder)}


def list_folder(pattern: str) -> Path:
    """The folder whose images a pattern lists: what comes before the first part with `*`, `?` or `[`."""
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))


def warn_of_deeper(files: ImageFiles | StoredImages | PackedImages, source: str) -> None:
    """A warning about images in the sub-folders of a folder that was given as `source`."""
    if files.deeper:
        folder = source.rstrip("/")
        warn(f"{files.deeper} more images are in sub-folders of {folder} and are not used; for all give {folder}/**/*")
