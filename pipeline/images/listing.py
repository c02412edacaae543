"""Images of a task: which files a folder holds, in natural order, and how each is opened and told apart."""

import glob
import itertools
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from natsort import natsorted

from ..core.console import warn
from ..core.digests import FileDigests, digest_of, stamp_of
from ..core.errors import NotFound, UserError
from ..core.store import Url, place
from .decoding import Decoded, Policy, read
from .stored import StoredImages, list_stored

# names of the kinds that decoding reads
EXTENSION = re.compile(
    r"\.(jpe?g|jpe|jfif|mpo|jp2|j2[kc]|jp[cfx]|a?png|bmp|dib|gif|webp|tiff?|p[bgpn]m|pfm|avifs?|hei[cf]|ico)",
    re.ASCII | re.IGNORECASE,
)
UNREADABLE = "unreadable"  # stands for the content of a file that cannot be read


class Images(Protocol):
    """Rows of images, wherever they lie."""

    ids: tuple[str, ...]

    def open(self, row: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        """As `decoding.read` gives it; DamagedImage names one that cannot be decoded."""

    def contents(self, digests: FileDigests) -> list[str]:
        """What each image is, without decoding any: equal text, equal image; UNREADABLE for no readable file."""

    def stamp(self) -> str:
        """What changes when an image does, found without reading any."""


@dataclass(frozen=True)
class ImageFiles:
    """The images of a competition in natural order (2.jpg before 10.jpg); ids are paths below `folder`.

    `left_out` is what was found beside them: other files, and what is called like an image but is no file.
    """

    folder: Path
    ids: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @cached_property
    def deeper(self) -> int:
        """Images in sub-folders of a folder whose own images alone are listed."""
        if any(os.sep in name for name in self.ids):
            return 0
        below = (names for place, _, names in os.walk(self.folder) if place != str(self.folder))
        return sum(is_image(name) for names in below for name in names)

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

    def stamp(self) -> str:
        def seen(path: str) -> list:
            try:
                return stamp_of(os.stat(path))
            except OSError:
                return [UNREADABLE]

        return digest_of({name: seen(path) for name, path in zip(self.ids, self.paths(), strict=True)})


def images_of(source: str, root: Path, where: str) -> ImageFiles | StoredImages:
    """The images of a folder or pattern from `root`, or of a URL; UserError, naming `where` it was written."""
    found = place(source, root)
    return list_stored(found, where, is_image) if isinstance(found, Url) else list_images(str(found), where)


def is_there(source: str, root: Path) -> bool:
    """Whether there is such a folder; of a URL it is found out when it is listed."""
    found = place(source, root)
    return isinstance(found, Url) or list_folder(str(found)).is_dir()


def list_images(pattern: str, where: str) -> ImageFiles:
    """The image files of a folder, or of a glob such as 'data/**/*.jpg'.

    Hidden and other non-image files (.DS_Store, Thumbs.db, ...) are left out. UserError, naming `where` the pattern was
    written, when there is no image.
    """
    if glob.has_magic(pattern):
        folder = list_folder(pattern)
        below = Path(pattern).parts[len(folder.parts) :]
        found = glob.glob(os.path.join(*below), root_dir=folder, recursive=True)
        files = {name: os.path.isfile(os.path.join(folder, name)) for name in found}
    else:
        folder = Path(pattern)
        if folder.is_file():
            raise UserError(f"{where}: {pattern} is a file; give the folder of the images, or a glob such as '*.jpg'")
        if not folder.is_dir():
            variable = "DATA" if ": " in where else where  # a recipe's path is overridden by DATA=
            raise NotFound(f"{where}: no image folder {pattern}. Put the images there or say where: {variable}=path")
        files = {entry.name: entry.is_file() for entry in os.scandir(folder)}
    images = [name for name, is_file in files.items() if is_file and is_image(name)]
    if not images:
        below = next((path for path in folder.glob("*/*") if is_image(path.name)), None)
        hint = f". There are some deeper; give a glob: {folder}/**/*{below.suffix}" if below else ""
        raise NotFound(f"{where}: no images in {pattern}{hint}")
    others = [name for name, is_file in files.items() if is_file != is_image(name)]
    return ImageFiles(folder, tuple(natsorted(images)), tuple(natsorted(others)))


def list_folder(pattern: str) -> Path:
    """The folder whose images a pattern lists: what comes before the first part with `*`, `?` or `[`."""
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))


def warn_of_deeper(files: ImageFiles | StoredImages, source: str) -> None:
    """A warning about images in the sub-folders of a folder that was given as `source`."""
    if files.deeper:
        folder = source.rstrip("/")
        warn(f"{files.deeper} more images are in sub-folders of {folder} and are not used; for all give {folder}/**/*")


def is_image(name: str) -> bool:
    """By its extension; hidden files (.DS_Store, ._1.jpg) are none."""
    base = os.path.basename(name)
    return bool(EXTENSION.fullmatch(os.path.splitext(base)[1])) and not base.startswith(".")
