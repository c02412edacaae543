"""A CSV with a line per image: its path (from the CSV's folder), its class and, if there is one, its split."""

from collections.abc import Iterator
from csv import DictReader, Error
from pathlib import Path

from ...core.errors import Damaged, NotFound, UserError, did_you_mean
from . import ALL, SPLITS, Row, reader


@reader
def csv(path: Path, image: str = "path", label: str = "class", split: str = "split") -> Iterator[Row]:
    """`path` is the CSV; the arguments are names of its columns. Without a split column all is one split."""
    if not path.is_file():
        raise UserError(f"{path}: reader csv takes a CSV file, not a folder")
    for line in table(path, image, label):
        named = line.get(split, ALL).strip()
        yield Row(line[image], line[label], SPLITS.get(named.lower(), named), path.parent / line[image])


def table(path: Path, *needed: str) -> Iterator[dict[str, str]]:
    """The lines of a CSV as dictionaries. UserError for a missing column or a line without a needed value."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            lines = DictReader(file, strict=True)
            columns = lines.fieldnames or []
            for name in needed:
                if name not in columns:
                    raise NotFound(f"{path}: no column {name!r}.{did_you_mean(name, columns)}")
            for line in lines:
                if None in line or None in line.values():
                    raise Damaged(f"{path}: line {lines.line_num} has not the header's {len(columns)} columns")
                empty = [name for name in needed if not line[name].strip()]
                if empty:
                    raise Damaged(f"{path}: line {lines.line_num}: {empty[0]!r} is empty")
                yield line
        except (Error, UnicodeDecodeError) as error:
            raise Damaged(f"{path}: not a CSV file in UTF-8: {error}") from None
