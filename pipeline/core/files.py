"""Files written whole or not at all, and locks that end with their process; a URL has none."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .store import Place, Url


@contextlib.contextmanager
def atomic_file(path: Place) -> Iterator[Path]:
    """A temporary path beside `path`; moved onto it when the block ends well, removed when it does not.

    The content is on disk before the name is, so a power cut leaves the old file or the new one.
    """
    if isinstance(path, Url):
        with tempfile.TemporaryDirectory() as folder:
            yield (content := Path(folder) / path.name)
            path.write_bytes(content.read_bytes())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def lock(path: Place) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel drops it with the process, so none is ever stale."""
    if isinstance(path, Url):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def try_lock(path: Place) -> Iterator[bool]:
    """Whether this process alone now holds the lock `path`; the file goes when the lock does."""
    if isinstance(path, Url):
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the holder before may have removed the file between our opening and our locking it
            held = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        try:
            yield held
        finally:
            if held:
                path.unlink(missing_ok=True)
