"""A CSV with a line per image: its path (from the CSV's folder), its class and, if there is one, its split."""

import csv
from collections.abc import Iterator
from pathlib import Path

from ...core.errors import UserError, did_you_mean
from . import ALL, SPLITS, Row


def read(path: Path, image: str = "path", label: str = "class", split: str = "split") -> Iterator[Row]:
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
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            for name in needed:
                if name not in columns:
                    raise UserError(f"{path}: no column {name!r}.{did_you_mean(name, columns)}")
            for line in reader:
                if None in line or None in line.values():
                    raise UserError(f"{path}: line {reader.line_num} has not the header's {len(columns)} columns")
                empty = [name for name in needed if not line[name].strip()]
                if empty:
                    raise UserError(f"{path}: line {reader.line_num}: {empty[0]!r} is empty")
                yield line
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a CSV file in UTF-8: {error}") from None
