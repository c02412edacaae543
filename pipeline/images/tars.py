"""Uncompressed tars: where each member lies, from their headers alone, so that members are read in any order."""

import tarfile
from collections.abc import Iterator
from typing import IO

from ..core.errors import Damaged


def members(file: IO[bytes], name: str) -> Iterator[tuple[str, int, int]]:
    """(name, first byte, bytes) of the plain files in a tar; UserError, naming it, where it is none or is cut off."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg():
                    yield member.name.removeprefix("./"), member.offset_data, member.size
    except tarfile.TarError as error:
        raise Damaged(f"{name}: not an uncompressed tar, or not a whole one: {error}") from None
