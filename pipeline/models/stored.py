"""Weights in an object store: fetched once into cache/weights/, and known by their sum before that."""

import hashlib
from pathlib import Path

from ..core.console import say
from ..core.errors import Damaged, NotFound
from ..core.files import atomic_file, lock
from ..core.store import RANGE, Url, is_url
from ..recipes import ModelEntry
from . import _preflight

AT_ONCE = 4  # ranges of a file that are held


def place(entry: ModelEntry, root: Path) -> Path | None:
    """Where an entry's own weights lie, or will once they are fetched; None: they are on a hub."""
    if not entry.weights:
        return None
    if not is_url(entry.weights):
        return root / entry.weights
    return root / "cache" / "weights" / str(entry.sha256)[:20] / Url(entry.weights).name


def fetch(name: str, entry: ModelEntry, root: Path) -> None:
    """Bring weights that are a URL, unless they are here. UserError where there are none, or others by their sum."""
    path = place(entry, root)
    if path is None or entry.sha256 is None or path.exists():
        return
    where, url = f"{entry.written_in}: {name}", Url(str(entry.weights))
    with lock(path.parent / "lock"):
        if path.exists():
            return
        size = url.size()
        if size is None:
            raise NotFound(f"{where}: no weights at {url}")
        _preflight.disk(name, path.parent, size, f"make {path.parent.parent} a link to a folder on another disk")
        say("models", name, f"fetching {url}, {size / 1e9:.2f} GB, into {path.parent}")
        found, step = hashlib.sha256(), AT_ONCE * RANGE
        with atomic_file(path) as temporary:
            with open(temporary, "wb") as file:
                for start in range(0, size, step):
                    stops = range(start, min(start + step, size), RANGE)
                    for part in url.ranges([(at, min(at + RANGE, size)) for at in stops]):
                        found.update(part)
                        file.write(part)
            if found.hexdigest() != entry.sha256:
                what = f"{url} has the SHA-256 {found.hexdigest()}, not {entry.sha256}"
                raise Damaged(f"{where}: {what}; nothing is kept. Mend 'sha256', or put the right file there")
