"""Whether all images of a folder are there: what was left out though it looks like one, and gaps in their numbers.

One image that is missing without a word shifts every row after it, where rows are told by their position.
"""

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ..core.errors import Mismatch, NotFound
from .damaged import SHOWN, left_out
from .listing import ImageFiles, PackedImages, is_image
from .names import TAR

NUMBER = re.compile(r"\d+", re.ASCII)
SAME_SHAPE = 0.9  # share of the names that must look alike before one more of that look is missed
DIGITS = 18  # of a number that counts images
SEQUENCE = 0.9  # share of the numbers from the first to the last that must be there to call it a sequence


def check(files: ImageFiles | PackedImages, source: str, where: str, count: int | None, by_position: bool) -> str:
    """UserError for images that are not there as they should be: every row after one would be another image's.

    `count` is how many there must be, and `by_position` whether rows are told so. Gives what is to be warned of, or ''.
    """
    total, missed = len(files.ids), list(suspects(files))
    if missed:
        raise left_out(files.folder, missed)
    if count is not None and total != count:
        raise Mismatch(f"{where}: count: {count}, but there are {total} images in {source}")
    missing = gaps(files) if count is None else []
    if not missing:
        return ""
    numbers = f"{len(missing)} numbers are missing, first {', '.join(map(str, missing[:SHOWN]))}"
    if by_position:
        raise NotFound(
            f"{files.folder}: {numbers}, and ids are positions: every row after them would shift. Put "
            f"the images there, or write 'count: {total}' in {where} if there are no more"
        )
    return f"{files.folder}: {numbers}"


def stem(name: str) -> str:
    """'a/.5.jpg.part' -> '5': what a name is without its folder, leading dots and all extensions."""
    return os.path.basename(name).lstrip(".").partition(".")[0]


def shape(name: str) -> str:
    """'img_0123.jpg' -> 'img_#': names of one shape differ in their numbers alone."""
    return NUMBER.sub("#", stem(name))


def suspects(files: ImageFiles | PackedImages) -> Iterator[tuple[str, str]]:
    """(name, what it is) of everything that was left out though it would be an image."""
    if not files.left_out:
        return
    stems = {stem(name) for name in files.ids}
    common, count = Counter(map(shape, files.ids)).most_common(1)[0]
    alike = "#" in common and count >= SAME_SHAPE * len(files.ids)
    for name in files.left_out:
        if is_image(name):
            yield name, _kind(files.folder / name)
        elif alike and shape(name) == common and stem(name) not in stems:
            yield name, "called as the images are, but with another ending"


def _kind(path: os.PathLike) -> str:
    if os.path.islink(path) and not os.path.exists(path):
        return "a link to nothing"
    return "a folder" if os.path.isdir(path) else "no plain file"


def _names(files: ImageFiles | PackedImages) -> Iterator[str]:
    """What may be numbered: in tars the members, which count on from one tar to the next; rows of a table are not."""
    if not isinstance(files, PackedImages):
        yield from files.ids
        return
    for file, first, stop in zip(files.files, files.firsts, [*files.firsts[1:], len(files.ids)], strict=True):
        if file.endswith(TAR):
            yield from (name[len(file) + 1 :] for name in files.ids[first:stop])


def gaps(files: ImageFiles | PackedImages) -> list[int]:
    """The numbers that are missing from names that otherwise count on, such as 0.jpg, 1.jpg, 3.jpg: [2]."""
    found: dict[str, array] = {}
    for name in _names(files):
        numbers = NUMBER.findall(stem(name))
        if len(numbers) == 1 and len(numbers[0]) <= DIGITS:
            found.setdefault(os.path.join(os.path.dirname(name), shape(name)), array("q")).append(int(numbers[0]))
    missing: list[int] = []
    for numbers in found.values():
        there = np.unique(np.frombuffer(numbers, np.int64))
        span = int(there[-1]) - int(there[0]) + 1
        if len(files.ids) * SEQUENCE <= len(there) and span * SEQUENCE <= len(there) < span:
            missing += np.setdiff1d(np.arange(there[0], there[-1]), there, assume_unique=True).tolist()
    return missing
