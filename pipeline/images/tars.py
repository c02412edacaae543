"""Uncompressed tars: where each member lies, from their headers alone, so that members are read in any order."""

import tarfile
from collections.abc import Iterator
from typing import IO

from ..core.errors import Damaged, UserError
from .damaged import left_out
from .names import is_image

BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 20  # bytes of what follows the last member that are looked at at a time


def members(file: IO[bytes], name: str) -> Iterator[tuple[str, int, int]]:
    """(name, first byte, bytes) of the plain files in a tar, and of hard links to those before them.

    UserError, naming it, where it is none, is not whole, or holds something else that is called like an image.
    """
    places: dict[str, tuple[int, int]] = {}
    others: list[tuple[str, str]] = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if tar.offset <= member.offset:
                    raise tarfile.ReadError(f"byte {member.offset}: a member of {member.size} bytes")
                called = member.name.removeprefix("./")
                if place := _place(member, places):
                    places[called] = place
                    yield called, *place
                elif is_image(called):
                    others.append((called, _kind(member)))
            stopped = tar.offset
    except UserError:
        raise
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise Damaged(f"{name}: not an uncompressed tar, or not a whole one: {error}") from None
    _check_end(file, stopped, name)
    if others:
        raise left_out(name, others)


def _place(member: tarfile.TarInfo, places: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """(first byte, bytes) of a member, where it is bytes in one piece."""
    if member.islnk():
        return places.get(member.linkname.removeprefix("./"))
    return (member.offset_data, member.size) if member.isreg() and not member.issparse() else None


def _kind(member: tarfile.TarInfo) -> str:
    if member.islnk():
        return f"a hard link to {member.linkname}, and no such file is before it"
    if member.issym():
        return f"a symbolic link to {member.linkname}"
    if member.issparse():
        return "a sparse file"
    return "a folder" if member.isdir() else "no plain file"


def _check_end(file: IO[bytes], stopped: int, name: str) -> None:
    """Damaged unless the end marker, two blocks of zeros, lies where reading stopped, and only zeros follow.

    tarfile takes a damaged header, and the end of the file, for the end of the archive.
    """
    file.seek(stopped)
    at = stopped
    while piece := file.read(PIECE):
        if rest := piece.lstrip(b"\0"):
            at += len(piece) - len(rest)
            if at - stopped < BLOCK:
                raise Damaged(
                    f"{name}: byte {stopped}: a damaged header, or half of one; members may follow. Write it again"
                )
            raise Damaged(
                f"{name}: byte {at}: something follows the end at byte {stopped}: two tars in one, or members that "
                "were overwritten by zeros. Write it again"
            )
        at += len(piece)
    if at - stopped < 2 * BLOCK:
        raise Damaged(
            f"{name}: byte {stopped}: no end marker ({2 * BLOCK} zeros): it is cut off, or was never finished. "
            "Write it again"
        )
