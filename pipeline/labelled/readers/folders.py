"""One folder per class, below one folder per split or not: Fruits-360, Sports, Birds, Simpsons, any ImageFolder."""

import os
from collections.abc import Iterator
from pathlib import Path

from natsort import natsorted

from ...images.listing import is_image
from . import ALL, SPLITS, Row, is_junk, reader


@reader
def folders(path: Path, ignore: list[str] | None = None) -> Iterator[Row]:
    """Rows class by class; `ignore` names folders that are no classes or splits."""
    ignored = set(ignore or ())
    top = _folders(path, ignored)
    splits = [folder for folder in top if folder.name.lower() in SPLITS and not _has_images(folder)]
    for split in splits:
        for folder in _folders(split, ignored):
            yield from _rows(path, folder, SPLITS[split.name.lower()])
    for folder in [] if splits else top:
        yield from _rows(path, folder, ALL)


def _folders(path: Path, ignored: set[str]) -> list[Path]:
    names = [entry.name for entry in os.scandir(path) if entry.is_dir()] if path.is_dir() else []
    return [path / name for name in natsorted(names) if not is_junk(name) and name not in ignored]


def _has_images(folder: Path) -> bool:
    return any(is_image(entry.name) for entry in os.scandir(folder) if entry.is_file())


def _rows(root: Path, folder: Path, split: str) -> Iterator[Row]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_junk(name)]
        found += [os.path.join(place, name) for name in files if is_image(name)]
    for name in natsorted(found):
        yield Row(Path(name).relative_to(root).as_posix(), folder.name, split, Path(name))
