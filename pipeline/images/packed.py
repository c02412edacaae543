"""Images in larger files, webdataset tars and Parquet: where each lies is learnt once, and only it is read.

Ids: of a tar `name.tar/` and the member's name; of Parquet the column `id`, else `name.parquet/` and the row's number.
Files come in natural order, and images as they lie in them.
"""

import bisect
import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..core import artefacts
from ..core.console import progress
from ..core.digests import FileDigests, digest_of, is_settled, stamp_of
from ..core.errors import Changed, Damaged, Mismatch, NotFound, UserError
from ..core.store import Place, Url
from ..core.texts import Texts, twice
from . import tables, tars
from .damaged import DamagedImage, Unreadable, check_size
from .decoding import Decoded, Policy, read
from .names import PARQUET, is_image
from .recent import Recent

VERSION = 2  # of an index: raise it when the same file gives another
AT_ONCE = 8  # files whose index is learnt at a time
NEAR, NEAR_BYTES = 8, 4 << 20  # images of a tar in a store that come with one request, at most so many bytes of them
BLOCKS, GROUPS = Recent(64), Recent(3)
STATE = ("ETag", "e_tag", "etag", "md5Hash", "content_md5")  # what stores call that which changes with an object
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")  # of stores that have nothing else


@dataclass(frozen=True, eq=False)
class PackedImages:
    """The images in `files` below `folder`; as `listing.ImageFiles`.

    `places` are (first byte, bytes) in a tar and (row group, row) in Parquet; the rows of file n begin at firsts[n].
    """

    folder: Place
    files: tuple[str, ...]
    states: tuple[str, ...]
    ids: Texts
    places: np.ndarray  # int64 (N, 2)
    firsts: tuple[int, ...]
    left_out: tuple[str, ...] = ()
    deeper: int = 0

    def open(self, row: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        number = bisect.bisect_right(self.firsts, row) - 1
        file = self.folder / self.files[number]
        name = f"{self.ids[row]} in {file}"
        try:
            if file.suffix == PARQUET:
                content = self._group(number, int(self.places[row, 0])).content(int(self.places[row, 1]))
            else:
                check_size(name, int(self.places[row, 1]), policy.max_pixels)
                content = self._member(number, row)
        except UserError:
            raise
        except ValueError as error:
            raise DamagedImage(name, str(error)) from None
        except OSError as error:
            raise Unreadable(name, str(error)) from None
        return read(content, draft_size, policy, name)

    def _member(self, number: int, row: int) -> bytes:
        file = self.folder / self.files[number]
        if not isinstance(file, Url):
            with self._local(number) as source:
                start, size = map(int, self.places[row])
                return os.pread(source.fileno(), size, start)
        begin, rows = self.firsts[number], self._near(number, row)
        start, stop = self._span(rows)
        near = BLOCKS.get((str(file), self.states[number], start, stop, begin), lambda: file.ranges([(start, stop)])[0])
        at, size = map(int, self.places[row])
        return near[at - start : at - start + size]

    def _near(self, number: int, row: int) -> range:
        """Those that are read together with a row."""
        begin = self.firsts[number]
        end = [*self.firsts, len(self.ids)][number + 1]
        first = begin + (row - begin) // NEAR * NEAR
        rows = range(first, min(first + NEAR, end))
        start, stop = self._span(rows)
        return rows if stop - start <= NEAR_BYTES else range(row, row + 1)

    def _span(self, rows: range) -> tuple[int, int]:
        """The bytes of a tar in which some rows lie; a hard link lies before its neighbours."""
        places = self.places[rows.start : rows.stop]
        return int(places[:, 0].min()), int(places.sum(axis=1).max())

    def _group(self, number: int, group: int) -> tables.Group:
        name = str(self.folder / self.files[number])

        def found() -> tables.Group:
            with self._local(number) as source:
                return tables.group(tables.opened(source, name), group, name)

        return GROUPS.get((name, self.states[number], group), found)

    @contextlib.contextmanager
    def _local(self, number: int) -> Iterator[IO[bytes]]:
        """A file, opened; UserError where it is not the one that the index is of."""
        with _opened(self.folder / self.files[number]) as (source, state):
            if state != self.states[number]:
                raise Changed(f"{self.folder / self.files[number]} was replaced while it was being read; run again")
            yield source

    def file(self, row: int) -> None:
        return None

    def contents(self, digests: FileDigests) -> Sequence[str]:
        """Of each image what its file is and where in it."""
        paths = [self.folder / name for name in self.files]
        both = zip(paths, self.states, strict=True)
        known = [state if isinstance(path, Url) else digests.of(path) for path, state in both]
        return Contents(tuple(known), self.firsts, len(self.ids))

    def stamp(self) -> str:
        return digest_of({"files": list(self.files), "states": list(self.states)})


@dataclass(frozen=True)
class Contents(Sequence[str]):
    """The content of each of `total` images: that of its file and its number there; none is held."""

    files: tuple[str, ...]
    firsts: tuple[int, ...]
    total: int

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, row):
        if isinstance(row, slice):
            return [self[at] for at in range(*row.indices(self.total))]
        row = range(self.total)[row]
        number = bisect.bisect_right(self.firsts, row) - 1
        return f"{self.files[number]} {row - self.firsts[number]}"

    def __iter__(self) -> Iterator[str]:
        for file, first, stop in zip(self.files, self.firsts, [*self.firsts[1:], self.total], strict=True):
            yield from (f"{file} {row}" for row in range(stop - first))


def listed(folder: Place, files: Sequence[str], left_out: Sequence[str], indexes: Path, where: str) -> PackedImages:
    """The images in `files` below a folder, in their order; what is learnt of each is kept in `indexes`.

    UserError, naming `where` they were written, for files without any image, and for ids that are there twice.
    """
    paths = [folder / name for name in files]
    if len({path.suffix for path in paths}) > 1:
        raise UserError(f"{where}: both tars and Parquet files in {folder}; give a pattern that finds one kind")
    with ThreadPoolExecutor(AT_ONCE) as pool, progress("index", "file", len(files)) as bar:
        found = []
        for one in pool.map(lambda path: _indexed(path, indexes), paths):
            found.append(one)
            bar.update()
    counts = [len(places) for _, _, places in found]
    if not sum(counts):
        raise NotFound(f"{where}: no images in {paths[0]}" + (f" and {len(paths) - 1} more" if paths[1:] else ""))
    kept = [name is not None for name in (names for _, names, _ in found)]
    own = any(kept) and files[0].endswith(PARQUET)  # a column of ids says all of them
    if own and not all(kept):
        has, lacks = paths[kept.index(True)], paths[kept.index(False)]
        raise Mismatch(f"{where}: {lacks} has no column {tables.ID!r}, and {has} has")
    states, firsts = tuple(state for state, _, _ in found), tuple(np.cumsum([0, *counts[:-1]]).tolist())
    parts = [
        names if own else Texts.of(f"{file}/{name}" for name in (names if names is not None else range(len(places))))
        for file, (_, names, places) in zip(files, found, strict=True)
    ]
    places = np.concatenate([places for _, _, places in found])
    del found  # of millions that is as much as all that is kept
    ids = Texts.joined(parts)
    del parts
    for one, other in twice(ids) if own else ():
        both = ((bisect.bisect_right(firsts, row) - 1, row) for row in (one, other))
        first, second = (f"row {row - firsts[number]} of {files[number]}" for number, row in both)
        raise Damaged(f"{folder}: id {ids[one]!r} is there twice, in {first} and in {second}")
    return PackedImages(folder, tuple(files), states, ids, places, firsts, tuple(left_out))


@contextlib.contextmanager
def _opened(file: Place) -> Iterator[tuple[IO[bytes], str]]:
    """A file, and what tells its present content from another; UserError where there is none."""
    if isinstance(file, Url):
        about = file.about()
        if about is None:
            raise NotFound(f"no object {file}")
        with file.opened(about["size"]) as source:
            yield source, state_of(about)
        return
    if not file.is_file():
        raise NotFound(f"no file {file}")
    with open(file, "rb") as source:
        yield source, " ".join(map(str, stamp_of(os.fstat(source.fileno()))))


def _indexed(file: Place, indexes: Path) -> tuple[str, Texts | None, np.ndarray]:
    """(state, names, places) of a file, read from `indexes` unless the file is another by now."""
    import torch

    with _opened(file) as (source, state):
        made_from = {"index": VERSION, "file": str(file), "state": state}
        kept = indexes / f"{digest_of({'file': str(file)})}.pt"
        known = artefacts.load(kept, digest_of(made_from))
        if known:
            names = Texts(known["names"].numpy().tobytes(), known["bounds"].numpy()) if known["named"] else None
            return state, names, known["places"].numpy()
        names, places = _learnt(source, file)
        if isinstance(file, Url) or is_settled(os.fstat(source.fileno())):
            text = names if names is not None else Texts.of([])
            arrays = {"names": np.frombuffer(bytearray(text.buffer), np.uint8), "bounds": text.bounds, "places": places}
            with contextlib.suppress(OSError):  # a cache that cannot be written only costs learning it again
                values = {key: torch.from_numpy(array) for key, array in arrays.items()}
                artefacts.save(kept, made_from, named=names is not None, **values)
        return state, names, places


def _learnt(source: IO[bytes], file: Place) -> tuple[Texts | None, np.ndarray]:
    """The names of the images in a file, and where each lies; UserError for a name that is there twice."""
    if file.suffix == PARQUET:
        return tables.rows(tables.opened(source, str(file)), str(file))
    found: dict[str, tuple[int, int]] = {}
    for name, start, size in tars.members(source, str(file)):
        if is_image(name):
            if name in found:
                raise Damaged(f"{file}: {name} is there twice, at bytes {found[name][0]} and {start}; remove one")
            found[name] = start, size
    return Texts.of(found), np.array(list(found.values()), np.int64).reshape(-1, 2)


def state_of(about: dict) -> str:
    """What tells one content of an object from another; the space says that it is no digest of the bytes alone."""
    known = next((str(about[key]) for key in (*STATE, *TIMES) if about.get(key)), "")
    return f"{known.strip(chr(34))} {about['size']}"
