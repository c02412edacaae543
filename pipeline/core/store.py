"""Places: a path of this machine, or a URL of an object store (s3://, gs://, az://, memory://), through fsspec.

`Url` has what code here asks of a `Path`. A store has no locks, no folders and no renaming; an object is there whole or
not at all. Requests that fail are tried again, and credentials are looked for where the provider's own client does.
"""

import io
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from .errors import NotFound, Unavailable, prefixed
from .extras import need

T = TypeVar("T")
TRIES = 10  # in about a minute
FIRST_WAIT, LONGEST_WAIT = 0.2, 20.0  # seconds
PAGE = 10_000  # objects that are listed at a time
BLOCK = 4 << 20  # bytes of an object that is read as a file
RANGE = 16 << 20  # bytes of a large object that one request asks for
CLOUDS = ("s3", "s3a", "gs", "gcs", "az", "abfs")
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, MemoryError, Unavailable)


@dataclass(frozen=True, order=True)
class Url:
    """An object, or what objects begin with, in a store."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple:
        return Url, (self.text,)  # to another process without the connections of this one

    def __truediv__(self, name: object) -> "Url":
        return Url(f"{self.text.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return self.text.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> "Url":
        return Url(self.text.rstrip("/").rpartition("/")[0])

    def with_suffix(self, suffix: str) -> "Url":
        return self.parent / (self.stem + suffix)

    @cached_property
    def _system(self) -> Any:
        return _file_system(self.text.partition("://")[0])

    @cached_property
    def _key(self) -> str:
        return self._system._strip_protocol(self.text)

    def exists(self) -> bool:
        """Whether there is such an object; a `folder` is what `listed` is not empty for."""
        return self.size() is not None

    def is_dir(self) -> bool:
        return False  # a store has objects

    def about(self) -> dict | None:
        """What fsspec tells of the object; None where there is none."""
        try:
            found = _tried(lambda: self._system.info(self._key, refresh=True), self.text)
        except FileNotFoundError:
            return None
        return found if found["type"] == "file" else None

    def size(self) -> int | None:
        """Of the object in bytes; None where there is none."""
        about = self.about()
        return None if about is None else about["size"]

    def opened(self, size: int) -> io.BufferedReader:
        """The object, of so many bytes, as a file that is read where it is asked for, BLOCK bytes or more at a time."""
        return io.BufferedReader(_Object(self, size), BLOCK)

    def read_bytes(self) -> bytes:
        """The object; a large one in ranges, several at a time. FileNotFoundError where there is none."""
        size = self.size()
        if size is None:
            raise FileNotFoundError(f"no object {self.text}")
        spans = [(start, min(start + RANGE, size)) for start in range(0, size, RANGE)]
        return b"".join(self.ranges(spans)) if size else b""

    def ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes start..stop of each span, several at a time."""
        starts, stops = [start for start, _ in spans], [stop for _, stop in spans]

        def ask() -> list[bytes]:
            found = self._system.cat_ranges([self._key] * len(spans), starts, stops, on_error="raise")
            if [len(part) for part in found] != [stop - start for start, stop in spans]:
                raise OSError("fewer bytes came than were asked for")
            return [bytes(part) for part in found]

        return _tried(ask, self.text)

    def write_bytes(self, content: bytes) -> None:
        """Put the object; whoever looks sees the old one or the new one, whole."""
        try:
            _tried(lambda: self._system.pipe_file(self._key, content), self.text)
        except FileNotFoundError as error:
            raise NotFound(f"{self.text}: cannot be written: {_first_line(error)}") from None

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            _tried(lambda: self._system.rm_file(self._key), self.text)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def listed(self) -> dict[str, dict]:
        """What fsspec tells of all objects below, by name from here; a request for a thousand of them."""
        self._system.invalidate_cache()
        try:
            found = _tried(lambda: self._system.find(self._key, detail=True), self.text)
        except FileNotFoundError:
            return {}
        return self._named(found)

    def pages(self) -> Iterator[dict[str, dict]]:
        """As `listed`, PAGE objects at a time where obstore lists them: fsspec tells of millions in gigabytes."""
        if not hasattr(self._system, "_construct_store"):
            yield self.listed()
            return
        import obstore

        bucket, prefix = self._system._split_path(self._key)
        store, stream, last = self._system._construct_store(bucket), None, None

        def page() -> Any:
            nonlocal stream
            stream = stream or iter(obstore.list(store, prefix or None, offset=last, chunk_size=PAGE))
            try:
                return next(stream, None)
            except Exception:
                stream = None  # to be asked again from the last that came
                raise

        while found := _tried(page, self.text):
            last, begin = found[-1]["path"], len(prefix.rstrip("/")) + 1 if prefix else 0
            yield {one["path"][begin:]: one for one in found if len(one["path"]) > begin}

    def _named(self, found: dict[str, dict]) -> dict[str, dict]:
        length = len(self._key.rstrip("/")) + 1
        return {key[length:]: about for key, about in found.items() if len(key) > length}

    def iterdir(self) -> Iterator["Url"]:
        return (self / name for name in self.listed() if "/" not in name)


class _Object(io.RawIOBase):
    """A file whose bytes come in ranges."""

    def __init__(self, url: Url, size: int):
        self.url, self.total, self.at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.total}[whence]
        return self.at

    def readinto(self, into: Any) -> int:
        stop = min(self.at + len(into), self.total)
        starts = range(self.at, stop, RANGE)
        content = b"".join(self.url.ranges([(start, min(start + RANGE, stop)) for start in starts])) if starts else b""
        into[: len(content)] = content
        self.at += len(content)
        return len(content)


Place = Path | Url


def is_url(text: str) -> bool:
    return "://" in text


def place(text: str, root: Path, variable: str = "") -> Place:
    """Where a text points that is a path (from `root`) or a URL; file:// is a path. Errors name the variable."""
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    if not is_url(text):
        return root / text
    url = Url(text.rstrip("/"))
    with prefixed(f"{variable}={text}") if variable else nullcontext():
        _ = url._system  # a protocol that is not known, or lacks its package, is told now
    return url


def _file_system(protocol: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(protocol, **_options(protocol))
    except ValueError:
        raise NotFound(f"{protocol}://: no such kind of store; known are s3, gs, az, file") from None
    except ImportError as error:
        if protocol in CLOUDS:
            need("store", f"{protocol}://")
        raise Unavailable(f"{protocol}://: {error}") from None


def _options(protocol: str) -> dict:
    """obstore speaks for the clouds where it is installed, else fsspec's own packages (s3fs, gcsfs, adlfs)."""
    if protocol not in CLOUDS:
        return {}
    try:
        from obstore.fsspec import register
    except ImportError:
        return {}
    register(protocol)
    return {"retry_config": {"max_retries": 0}}  # `_tried` does it for all alike


def _tried(ask: Callable[[], T], what: str) -> T:
    """What `ask` gives; asked again, later and later, as long as it fails for a reason that may pass."""
    for number in range(TRIES):
        try:
            return ask()
        except FINAL:
            raise
        except Exception as error:
            if number == TRIES - 1:
                raise Unavailable(f"{what}: {type(error).__name__}: {_first_line(error)} ({TRIES} tries)") from None
        time.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**number) * random.uniform(0.5, 1.5))
    raise AssertionError("a loop that returns or raises")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:300]
