"""WebDataset tars: members of one key are one sample, e.g. 000123.jpg and 000123.cls.

The webdataset library reads tars as streams. Here rows are asked for in any order and again after an interruption,
so the headers are read once and images by their place; a test compares both.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...core.errors import Mismatch, NotFound
from ...images import tars
from ...images.names import is_image
from . import ALL, SPLITS, Row, reader

LABELS = ("cls", "txt")


@reader
def webdataset(path: Path, label: str | None = None) -> Iterator[Row]:
    """`path` is a tar, or a folder of tars named after their split or below folders named so.

    `label` is the extension of the label (cls or txt by default). Numbers are lines of classnames.txt, if there is one.
    """
    root = path if path.is_dir() else path.parent
    listed = root / "classnames.txt"
    names = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else None
    for file in sorted(path.rglob("*.tar")) if path.is_dir() else [path]:
        for key, members in _samples(file).items():
            pixels = next((member for suffix, member in members.items() if is_image(f"x.{suffix}")), None)
            answer = next((members[suffix] for suffix in ([label] if label else LABELS) if suffix in members), None)
            if pixels is None:
                continue
            if answer is None:
                raise NotFound(
                    f"{file}: {key} has no label ({label or ' or '.join(LABELS)}); "
                    f"its members are {', '.join(sorted(members))}"
                )
            named = _class_name(_bytes(file, *answer).decode().strip(), names, file)
            name = f"{file.relative_to(root).as_posix()}/{key}"
            yield Row(name, named, _split(root, file), file, partial(_bytes, file, *pixels))


def _samples(file: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """{key: {extension: (offset, size)}}; the key ends at the first dot of the file name."""
    samples: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    with open(file, "rb") as tar:
        for member, offset, size in tars.members(tar, str(file)):
            folder, slash, name = member.rpartition("/")
            base, dot, suffix = name.partition(".")
            if base and dot:
                samples[folder + slash + base][suffix.lower()] = (offset, size)
    return samples


def _split(root: Path, file: Path) -> str:
    """From the first folder below the root, or from the file's name: test/0.tar, test-000000.tar."""
    parts = file.relative_to(root).parts
    named = parts[0] if parts[1:] else file.stem.rpartition("-")[0]
    return SPLITS.get(named.lower(), named) or ALL


def _class_name(text: str, names: list[str] | None, file: Path) -> str:
    if names is None or not text.isdecimal():
        return text
    if int(text) >= len(names):
        raise Mismatch(f"{file}: label {text}, but classnames.txt has {len(names)} lines")
    return names[int(text)]


def _bytes(file: Path, offset: int, size: int) -> bytes:
    with open(file, "rb") as tar:
        tar.seek(offset)
        return tar.read(size)
