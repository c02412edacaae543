"""Many texts in one buffer: ten million names take their bytes and eight more each, and no object.

A `Texts` is a sequence of strings as a tuple is, and equal to a tuple or list of the same strings.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

CHUNK = 4096  # texts that are turned into strings at a time
LARGE = 50_000  # names that natsort takes a moment for


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a file's name may be no UTF-8


class Texts(Sequence[str]):
    """Strings in order: `buffer` holds their UTF-8, and text n lies at bounds[n]..bounds[n + 1]. A slice is a view."""

    __slots__ = ("buffer", "bounds")

    def __init__(self, buffer: bytes, bounds: np.ndarray):
        self.buffer, self.bounds = buffer, bounds

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        if isinstance(texts, Texts):
            return texts
        parts, sizes, source = [], [np.zeros(1, np.int64)], iter(texts)
        while chunk := [_encoded(text) for text in itertools.islice(source, CHUNK)]:
            parts.append(b"".join(chunk))
            sizes.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
        return cls(b"".join(parts), np.concatenate(sizes).cumsum())

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """All texts of `parts`, one after the other."""
        parts = [part._alone() for part in parts]
        sizes = [np.zeros(1, np.int64), *(np.diff(part.bounds) for part in parts)]
        return cls(b"".join(part.buffer for part in parts), np.concatenate(sizes).cumsum())

    def take(self, rows: Iterable[int]) -> "Texts":
        """The texts of some rows, in the order of these."""
        return Texts.of(self[row] for row in rows)

    def __reduce__(self) -> tuple:
        alone = self._alone()
        return Texts, (alone.buffer, alone.bounds)

    def _alone(self) -> "Texts":
        """The same without what a view leaves out."""
        first, last = int(self.bounds[0]), int(self.bounds[-1])
        if first == 0 and last == len(self.buffer):
            return self
        return Texts(self.buffer[first:last], self.bounds - first)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "Texts": ...
    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                return Texts.of(self[row] for row in range(start, stop, step))
            return Texts(self.buffer, self.bounds[start : max(start, stop) + 1])
        row = range(len(self))[at]  # IndexError for a row that there is none of
        return self.buffer[self.bounds[row] : self.bounds[row + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            bounds = self.bounds[start : start + CHUNK + 1].tolist()
            part, first = self.buffer[bounds[0] : bounds[-1]], bounds[0]
            if part.isascii():
                text = part.decode("ascii")
                yield from (text[a - first : b - first] for a, b in itertools.pairwise(bounds))
            else:
                spans = itertools.pairwise(bounds)
                yield from (part[a - first : b - first].decode("utf-8", "surrogatepass") for a, b in spans)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            mine, others = self._alone(), other._alone()
            return mine.buffer == others.buffer and np.array_equal(mine.bounds, others.bounds)
        if not isinstance(other, (tuple, list)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(self._alone().buffer)

    def __repr__(self) -> str:
        more = ", ..." if len(self) > 3 else ""
        return f"Texts({', '.join(map(repr, self[:3]))}{more}; {len(self)})"


def twice(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Two rows of each text that is there more than once, the first and another, without holding strings of all."""
    hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
    order = hashes.argsort(kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    first: dict[str, int] = {}
    for before, after in zip(order[same].tolist(), order[same + 1].tolist(), strict=True):
        first.setdefault(texts[before], before)
        if first.setdefault(texts[after], after) != after:  # else two texts have one hash
            yield first[texts[after]], after


def natural(names: Iterable[str]) -> list[str]:
    """Names in natural order, 2.jpg before 10.jpg, as natsort has them; of many ASCII ones with short keys."""
    from natsort import natsorted

    names = list(names)
    if len(names) < LARGE or not all(name.isascii() and name.isprintable() for name in names):
        return natsorted(names)
    names.sort(key=_key())
    return names


def natural_order(names: Texts) -> Sequence[int] | None:
    """The rows of names in the order of `natural`; None where they are in it. Of many the keys are all that is held."""
    from natsort import natsort_keygen

    plain = len(names) < LARGE or not all(name.isascii() and name.isprintable() for name in names)
    key: Callable[[str], Any] = natsort_keygen() if plain else _key()
    if all(before <= after for before, after in itertools.pairwise(map(key, names))):
        return None
    keys = list(map(key, names))
    return sorted(range(len(keys)), key=keys.__getitem__)


def _key() -> Callable[[str], bytes]:
    """What sorts printable ASCII as natsort does: each number after its length, each text up to a sign below all."""
    number = re.compile(r"[0-9]+")

    def with_length(found: re.Match) -> str:
        digits = found[0].lstrip("0") or "0"
        # no text is empty: an end and a length of four signs come before whatever is printable
        return f"\x01{chr(1 + len(digits) // 100)}{chr(1 + len(digits) % 100)}{digits}\x01"

    return lambda name: number.sub(with_length, name).encode()
