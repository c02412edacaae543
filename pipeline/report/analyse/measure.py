"""What can be measured on one image file, and which files show the same picture."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...images.decoding import DamagedImage, Policy, content_of, read
from ...recipes import MAX_PIXELS

INVISIBLE = 3.0  # grey levels (RMS) that an image may lose before a detail counts as lost
LARGEST = 1024  # pixels a side that the spectrum is taken of; larger images by their middle
HASH_SIDE = 16
HASH_BITS = 20  # of 256 that near duplicates may differ in
NEAR = 6.0  # grey levels (RMS) that the thumbnails of near duplicates may differ by
CHUNK = 128  # images that are compared with all others at a time


@dataclass(frozen=True)
class Measures:
    """One file; `problem` says why the rest is unknown."""

    name: str
    size: int = 0  # bytes
    content: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    brightness: float = 0.0  # mean grey, 0 to 255
    contrast: float = 0.0  # standard deviation of grey
    resolution: int = 0  # pixels
    thumbnail: np.ndarray | None = None  # (HASH_SIDE, HASH_SIDE + 1) grey, uint8
    problem: str = ""


def measure(name: str, path: str, max_pixels: int = MAX_PIXELS) -> Measures:
    """Read a file once and measure it; a damaged one gives its problem."""
    try:
        content = content_of(path, Policy(max_pixels))
        seen = read(content, policy=Policy(max_pixels))
    except DamagedImage as damage:
        return Measures(name, problem=damage.why)
    grey = seen.image.convert("L")
    levels = np.asarray(grey, dtype=np.float32)
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    return Measures(
        name,
        len(content),
        hashlib.blake2b(content, digest_size=16).hexdigest(),
        *seen.image.size,
        seen.mode,
        seen.format,
        float(levels.mean()),
        float(levels.std()),
        effective_resolution(levels),
        small,
    )


def effective_resolution(grey: np.ndarray) -> int:
    """The shorter side in pixels to which an image can be reduced without a visible loss.

    That is the lowest frequency above which the cosine transform holds less energy than INVISIBLE grey levels.
    An image that was enlarged keeps the resolution it had before; a blurred or flat one has a low one too.
    """
    from scipy.fft import dctn

    side, (height, width) = min(grey.shape), (min(length, LARGEST) for length in grey.shape)
    top, left = (grey.shape[0] - height) // 2, (grey.shape[1] - width) // 2
    energy = dctn(grey[top : top + height, left : left + width], norm="ortho") ** 2
    rows, columns = np.arange(height) / height, np.arange(width) / width
    frequency = (np.maximum(rows[:, None], columns) * side).astype(int)  # in half periods a shorter side
    beyond = np.bincount(frequency.ravel(), energy.ravel(), minlength=side)[::-1].cumsum()[::-1] / energy.size
    return max(1, int((beyond > INVISIBLE**2).sum()))


def exact_duplicates(measured: Sequence[Measures]) -> list[list[int]]:
    """Groups of positions whose files have the same bytes."""
    groups = defaultdict(list)
    for position, one in enumerate(measured):
        if not one.problem:
            groups[one.content].append(position)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(measured: Sequence[Measures]) -> list[list[int]]:
    """Groups of positions whose pictures look the same in other files (saved, scaled or lit a little differently).

    Candidates have nearly the same difference hash (is a thumbnail's pixel darker than its right neighbour?);
    their thumbnails, each less its mean, must agree as well. Of files with the same bytes only the first counts.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = {one.content: position for position, one in reversed(list(enumerate(measured))) if not one.problem}
    at = np.array(sorted(first.values()), dtype=int)
    if len(at) < 2:
        return []
    pairs = _alike(np.stack([measured[position].thumbnail for position in at]))
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(at), len(at)))
    count, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    groups = np.split(at[order], np.searchsorted(group[order], np.arange(1, count)))
    return sorted(members.tolist() for members in groups if len(members) > 1)


def _alike(thumbnails: np.ndarray) -> np.ndarray:
    """Pairs (first < second) of thumbnails that look the same; (pairs, 2)."""
    bits = np.packbits(thumbnails[:, :, 1:] > thumbnails[:, :, :-1], axis=None).reshape(len(thumbnails), -1)
    words = bits.view(np.uint64)
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat = flat - flat.mean(axis=1, keepdims=True)
    found = [np.empty((0, 2), int)]
    for start in range(0, len(words), CHUNK):
        rest = words[start:]
        distance = np.zeros((min(CHUNK, len(rest)), len(rest)), np.uint16)
        for word in range(words.shape[1]):
            distance += np.bitwise_count(rest[:CHUNK, word, None] ^ rest[None, :, word])
        a, b = np.nonzero(np.triu(distance <= HASH_BITS, 1))
        a, b = a + start, b + start
        same = np.sqrt(((flat[a] - flat[b]) ** 2).mean(axis=1)) <= NEAR
        found.append(np.stack([a[same], b[same]], axis=1))
    return np.concatenate(found)
