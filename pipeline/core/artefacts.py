"""One `.pt` artefact: what it was made from, its digest, atomic save, safe load, shards of rows.

An artefact is a folder named after the digest of everything that decides its content. Its rows (images) lie
there in shard files, each a plain dict that `torch.load(path, weights_only=True)` reads. Nothing is ever
overwritten by something else: another content has another digest, so undoing an edit finds the old files.

A file is used only as it was written: torch stores a CRC-32 of every record of its zip archive but compares none;
`load` does, each time. What fails that, or is not the artefact its place says, is computed again.

In an object store there are no locks: two processes may compute one shard, which then are equal, and the last is kept.
There a shard is checked when it is read, and a manifest, written when all are there, spares listing them.
"""

import contextlib
import errno
import io
import json
import os
import random
import re
import shutil
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import pickling, unpickling
from .digests import digest_of, is_settled, stamp_of
from .errors import Changed, Exists, Unavailable
from .files import atomic_file, try_lock
from .store import Place, Url

MANIFEST = "manifest.json"
SHARD_NAME = re.compile(r"(\d+)-(\d+)\.pt")


def save(path: Place, made_from: dict, **values: Any) -> None:
    """Write one artefact file: `values` (tensors, strings, numbers, lists) plus digest and made_from."""
    import torch

    content = {**values, "digest": digest_of(made_from), "made_from": json.dumps(made_from)}
    with atomic_file(path) as temporary:
        try:
            with open(temporary, "wb") as file:  # given a name, torch would write it into the file
                torch.save(content, file, pickle_module=pickling)
        except (RuntimeError, OSError) as error:  # torch's own word for a failed write
            free = shutil.disk_usage(temporary.parent).free / 1e9
            raise OSError(f"cannot write {path} ({free:.2f} GB free on its disk)") from error


def load(path: Place, digest: str | None = None, mapped: bool = False) -> dict | None:
    """The artefact in `path`, or None when it is absent, damaged or another one than `digest`.

    It is read, not mapped: a mapped file that something cuts off in place would end the process. `mapped` is for more
    than memory holds.

    OSError when it cannot be read for a reason that may pass (no permission, too many open files, no memory):
    then it must not be taken for damaged.
    """
    import torch

    try:
        source = io.BytesIO(path.read_bytes()) if isinstance(path, Url) else path
        with zipfile.ZipFile(source) as archive:
            if any(record.compress_type for record in archive.infolist()) or archive.testzip():
                return None
        with warnings.catch_warnings(action="ignore"):  # what torch finds odd in a foreign file is refused below
            artefact = unpickling.load(source)
        if not isinstance(artefact, dict):
            return None
        if not mapped and source is path:
            artefact = {key: value.clone() if torch.is_tensor(value) else value for key, value in artefact.items()}
        made = digest_of(json.loads(artefact["made_from"]))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        if error.errno in (None, errno.EINVAL, errno.ELOOP):  # what a damaged archive or a loop of links gives
            return None
        raise
    except Unavailable:  # a store that does not answer
        raise
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from error
    except Exception as error:  # a damaged file fails in many ways, and all of them mean: not usable
        if "unable to mmap" in str(error):
            raise OSError(errno.ENOMEM, str(error).splitlines()[0], str(path)) from error
        return None
    return artefact if artefact.get("digest") == made and digest in (None, made) else None


def load_or_discard(path: Place, digest: str, mapped: bool = False) -> dict | None:
    """As `load`; a damaged file is said and removed, so that it is computed again."""
    there = path.exists() if isinstance(path, Url) else os.path.lexists(path)
    artefact = load(path, digest, mapped)
    if there and artefact is None:
        discard(path)
    return artefact


def discard(path: Place) -> None:
    """Say that a file of the cache is damaged, and remove it."""
    if isinstance(path, Path) and path.is_dir() and not path.is_symlink():
        raise Exists(f"{path}: a folder where a file of the cache belongs; move it away")
    print(f"cache: {path} is damaged and is computed again", flush=True)
    path.unlink(missing_ok=True)


def gaps_between(spans: Iterable[tuple[int, int]], size: int, first: int, last: int) -> list[tuple[int, int]]:
    """The rows of first..last in no span (start, stop), which come by their starts; cut at multiples of `size`."""
    gaps, end = [], first
    for start, stop in [*spans, (last, last)]:
        while end < start:
            cut = min(start, (end // size + 1) * size)
            gaps.append((end, cut))
            end = cut
        end = max(end, stop)
    return gaps


# the stamp of each shard that this process found whole, so that listing them often costs little
_seen_whole: dict[Path, list] = {}
_manifests: dict[Url, list[str]] = {}  # of complete results in stores, that this process read or wrote


@dataclass(frozen=True)
class Artefact:
    """A result with one row per image, in shards under `folder`/<digest>/.

    `made_from` is a JSON-able dict of everything that decides the content; `ids` are the rows in order.
    """

    folder: Place
    made_from: dict
    ids: Sequence[str]

    @property
    def digest(self) -> str:
        return digest_of(self.made_from)

    @property
    def path(self) -> Place:
        return self.folder / self.digest

    def shards(self, first: int = 0, last: int | None = None, checked: bool = True) -> list[tuple[int, int, Place]]:
        """(start, stop, file) of the usable shards with rows of first..last, in row order and without overlap.

        Not `checked` those that are there: whoever reads them finds out whether they are whole.
        """
        found, end = [], 0
        for start, stop, file in self._files():
            if start < end or stop <= first or (last is not None and start >= last):
                continue
            if checked and isinstance(file, Path) and not self._usable(start, stop, file):
                continue
            found.append((start, stop, file))
            end = stop
        return found

    def _usable(self, start: int, stop: int, file: Path) -> bool:
        """Whether a shard is what it should be, else it is discarded; asked again only after the file changed."""
        try:
            status = file.stat()
        except OSError:
            status = None
        if status and _seen_whole.get(file) == stamp_of(status):
            return True
        settled = status is not None and is_settled(status)
        shard = load_or_discard(file, self.digest, mapped=True)  # of its tensors nothing is read
        if shard is None or not self._is_of(shard, start, stop):
            if shard:
                discard(file)
            return False
        if status and settled:
            _seen_whole[file] = stamp_of(status)
        return True

    def _is_of(self, shard: dict, start: int, stop: int) -> bool:
        return shard.get("ids") == list(self.ids[start:stop])

    def _files(self) -> list[tuple[int, int, Place]]:
        matches = [match for match in map(SHARD_NAME.fullmatch, self._names()) if match]
        spans = [(int(match[1]), int(match[2]), self.path / match[0]) for match in matches]
        # of two shards that start together the longer one comes first
        return sorted(spans, key=lambda span: (span[0], -span[1]))

    def _names(self) -> Iterable[str]:
        if isinstance(self.path, Url):
            if self.path not in _manifests:
                with contextlib.suppress(FileNotFoundError, ValueError):
                    _manifests[self.path] = json.loads((self.path / MANIFEST).read_bytes())
            return _manifests.get(self.path) or self.path.listed()
        return os.listdir(self.path) if self.path.is_dir() else []

    def seal(self) -> None:
        """In a store: write the manifest of a result that is complete; the next to ask need one request."""
        if isinstance(self.path, Url) and self.path not in _manifests:
            names = [file.name for _, _, file in self.shards()]
            (self.path / MANIFEST).write_bytes(json.dumps(names).encode())
            _manifests[self.path] = names

    def _forget(self, file: Url) -> None:
        """A shard that was in a store and is not what it should be: it is computed again by the next run."""
        discard(file)
        (file.parent / MANIFEST).unlink(missing_ok=True)
        _manifests.pop(file.parent, None)

    def missing(
        self, size: int, first: int = 0, last: int | None = None, checked: bool = True
    ) -> list[tuple[int, int]]:
        """The row ranges of first..last not yet on disk, cut at multiples of `size`."""
        last = len(self.ids) if last is None else last
        return gaps_between(((start, stop) for start, stop, _ in self.shards(first, last, checked)), size, first, last)

    def claim(self, size: int, rank: int = 0, world: int = 1) -> Iterator[tuple[int, int, int, tuple[int, int] | None]]:
        """Shards to compute, each while its lock is held, until all are there.

        Each as (start, stop, rows still missing, the shard that will probably be the next or None).

        Processes that share a cache share the work: no shard is computed twice at the same time, rank r of W
        begins with shards r, r + W, ... and then helps with the others. The lock of a killed process is free
        again, so its shard is taken up by whoever is left.
        """
        while gaps := self.missing(size):
            left, made = sum(stop - start for start, stop in gaps), 0
            if isinstance(self.path, Url):  # without locks: processes that know nothing of each other begin apart
                at = random.randrange(len(gaps))
                gaps = gaps[at:] + gaps[:at]
            own = gaps[rank::world]
            order = [gap for first in range(world) for gap in gaps[(rank + first) % world :: world]]
            for number, (start, stop) in enumerate(order, 1):
                file = self._file(start, stop)
                with try_lock(file.with_suffix(".lock")) as mine:
                    if mine and not file.exists():
                        made += 1
                        yield start, stop, left, own[number] if number < len(own) else None
                        left -= stop - start
            if made == len(gaps):
                return  # all of it here, just now: nothing of it needs to be read again
            if not made:
                time.sleep(0.2)  # the rest is being computed elsewhere

    @contextlib.contextmanager
    def claimed(self, start: int, stop: int) -> Iterator[bool]:
        """Whether these rows are to be computed here, with their lock held; else somebody has just computed them."""
        while True:
            with try_lock(self._file(start, stop).with_suffix(".lock")) as mine:
                if mine or self.has(start, stop):
                    yield not self.has(start, stop)
                    return
            time.sleep(0.2)  # they are being computed elsewhere

    def _file(self, start: int, stop: int) -> Place:
        return self.path / f"{start:08d}-{stop:08d}.pt"

    def has(self, start: int, stop: int) -> bool:
        """Whether there is a file of exactly these rows."""
        return self._file(start, stop).exists()

    def drop(self, start: int, stop: int) -> None:
        """Remove the file of exactly these rows, if there is one."""
        self._file(start, stop).unlink(missing_ok=True)

    def save(self, start: int, stop: int, **values: Any) -> None:
        """Write rows start..stop."""
        save(self._file(start, stop), self.made_from, ids=list(self.ids[start:stop]), **values)

    def read(self, start: int, stop: int, file: Place, mapped: bool = False) -> dict:
        """The content of one of `shards`; UserError when it was damaged or removed since it was found usable."""
        shard = load(file, self.digest, mapped)
        if shard is None or not self._is_of(shard, start, stop):
            if isinstance(file, Url):
                self._forget(file)
            raise Changed(f"{file} was damaged or removed while it was in use; run the same command again")
        return shard

    def rows(self, key: str, start: int, stop: int, into: Any = None) -> Any:
        """Tensor `key` of rows start..stop, put together from the shards that hold them, in memory that is there.

        UserError when one was damaged or removed since it was found usable.
        """
        import torch

        parts, end = [], start
        whole = self._file(start, stop)  # the usual case; listing all shards for each would be quadratic
        for first, last, file in [(start, stop, whole)] if whole.exists() else self._files():
            if first <= end < last and end < stop:
                part = self.read(first, last, file, mapped=into is not None)[key][end - first : stop - first]
                if into is None:
                    parts.append(part)
                else:
                    into[end - start : end - start + len(part)] = part
                end = min(last, stop)
        if end < stop:
            raise Changed(
                f"rows {end} to {stop} were removed from {self.path} while they were in use; run the same command again"
            )
        return into if into is not None else parts[0] if len(parts) == 1 else torch.cat(parts)
