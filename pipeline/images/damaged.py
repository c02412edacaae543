"""Images of which no picture can be made, and why."""

from collections.abc import Sequence

from ..core.errors import Damaged

SHOWN = 5  # names in a message
FILE_BYTES_PER_PIXEL = 16  # a file with more than this for each pixel that is allowed is not read into memory
SMALL_FILE = 64_000_000  # bytes that are always read: metadata may be larger than the picture


class DamagedImage(Damaged):
    """An image of which no picture can be made; `why`, without its name."""

    def __init__(self, name: str, why: str):
        super().__init__(f"cannot read image {name}: {why}. Replace or remove it")
        self.name, self.why, self.content = name, why, ""

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.why), vars(self)  # from one process to another


class Unreadable(DamagedImage):
    """A file whose bytes cannot be had: no permission, not there, a failing disk."""


def check_size(name: str, size: int, max_pixels: int) -> None:
    """DamagedImage for a file of more bytes than any image that is allowed can need."""
    if size > max(SMALL_FILE, FILE_BYTES_PER_PIXEL * max_pixels):
        raise DamagedImage(name, f"{size:,} bytes, more than an image of max_pixels: {max_pixels} needs")


def left_out(place: object, found: Sequence[tuple[str, str]]) -> Damaged:
    """The error for what would be images by their names and is none: (name, what it is) of each, below a place."""
    names = "; ".join(f"{name} ({what})" for name, what in found[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if found[SHOWN:] else ""
    return Damaged(f"{place}: left out, though it would be an image: {names}{more}. Mend or remove it")
