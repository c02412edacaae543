"""What content is told apart by: digests of facts and of files, the latter remembered so that each is read once."""

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from .files import atomic_file

FORMAT = 1  # part of every digest: raise it when the content of an artefact changes for the same inputs
PLAIN = (str, bytes, list, tuple)  # what JSON is written of at once
CHUNK = 4096  # rows
YOUNG = 2_000_000_000  # ns; coarser than the time stamps of any file system in use


def digest_of(made_from: dict) -> str:
    """20 hex digits of a JSON-able dict; key order does not matter. Rows (see `_pieces`) stand for their list."""
    hashed = hashlib.blake2b(digest_size=10)
    for text in _pieces(made_from):
        hashed.update(text.encode(errors="surrogateescape"))
    return hashed.hexdigest()


def _pieces(made_from: dict) -> Iterator[str]:
    """The JSON of a dict; of values that are rows, a sequence but no list, not all is held at once."""
    rows = {key for key, value in made_from.items() if isinstance(value, Sequence) and not isinstance(value, PLAIN)}
    if not rows:
        yield _json(made_from)
        return
    for number, key in enumerate(sorted(made_from)):
        yield f"{',' if number else '{'}{_json(key)}:"
        if key not in rows:
            yield _json(made_from[key])
            continue
        texts, before = iter(made_from[key]), "["
        while chunk := list(itertools.islice(texts, CHUNK)):
            yield before + _json(chunk)[1:-1]
            before = ","
        yield "[]" if before == "[" else "]"
    yield "}"


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def stamp_of(status: os.stat_result) -> list:
    """What changes when a file's content does."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def is_settled(status: os.stat_result) -> bool:
    """Whether the file is so old that a later write cannot have left its stamp as it is."""
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > YOUNG


def read_memo(path: Path) -> dict:
    """What `write_memo` wrote, {} when there is nothing or it was damaged: all of it can be learnt again."""
    try:
        checksum, _, text = path.read_bytes().partition(b"\n")
        return json.loads(text) if checksum.decode() == _checksum(text) else {}
    except (OSError, ValueError):
        return {}


def write_memo(path: Path, known: dict) -> None:
    """Remember JSON-able facts; a read-only cache only costs learning them again next time."""
    text = json.dumps(known).encode()
    with contextlib.suppress(OSError), atomic_file(path) as temporary:
        temporary.write_bytes(b"\n".join([_checksum(text).encode(), text]))


def _checksum(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def content_digest(content: bytes) -> str:
    """Of a file's bytes, as `FileDigests` gives it."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class FileDigests:
    """Content digests of files, remembered by size and times in `memo` so that each is read once; used in a `with`.

    A file is read again when its size, modification or change time differs, or when it was so young at the
    last reading that a later write could have left those unchanged. `touch` and `git checkout` therefore cost
    a reading and change no digest.
    """

    def __init__(self, memo: Path):
        self.memo = memo
        self.known = read_memo(memo)
        self.changed = False

    def of(self, path: str | Path) -> str:
        """Hex digest of the content of `path`."""
        status = os.stat(path)
        stamp, settled, key = stamp_of(status), is_settled(status), os.path.abspath(path)
        if self.known.get(key, [None])[0] == stamp:
            return self.known[key][1]
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        if settled:
            self.known[key] = [stamp, content]
            self.changed = True
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Write what was learnt, also where something went wrong later."""
        if self.changed:
            write_memo(self.memo, self.known)
            self.changed = False
