"""Tables: for the terminal, for Markdown, and as CSV that a leaderboard reads; and CSV as users write it."""

import csv
import io
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

from .errors import Damaged, NotFound

NARROW = 8  # characters that a column keeps
NUMBER = re.compile(r"[-+]?\d")  # how a cell begins that holds a number


def table(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Columns of text, padded; those of numbers to the right. On a terminal the widest are cut to its width.

    Where it is no terminal nothing is cut; `COLUMNS=200` says that one is so wide.
    """
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    if sys.stdout.isatty():
        lines = _cut(lines, shutil.get_terminal_size().columns)
    columns = []
    for title, *cells in zip(*lines, strict=True):
        width, numbers = max(map(len, (title, *cells))), all(NUMBER.match(cell) for cell in cells if cell)
        columns.append([cell.rjust(width) if numbers and any(cells) else cell.ljust(width) for cell in (title, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _cut(lines: list[list[str]], most: int) -> list[list[str]]:
    """Cells shortened until a line is `most` characters wide: those of the widest column, as long as one is above 8."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > most and max(widths) > NARROW:
        widths[widths.index(max(widths))] -= 1
    return [
        [cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(line, widths, strict=True)]
        for line in lines
    ]


def markdown(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """The lines of a Markdown table, without a line end after the last."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *cells])


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """CSV with LF line ends; fields are quoted only where they must be."""
    return csv_lines([header, *rows])


def csv_lines(rows: Iterable[Sequence]) -> str:
    """Rows as CSV, without a header."""
    lines: list[str] = []
    # a field with a lone CR is quoted only where CR is in the line end
    csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n").writerows(rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def parse_csv(text: str, where: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV; UserError when it is no table."""
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except csv.Error as error:
        raise Damaged(f"{where}: not a CSV file: {error}") from None
    if not lines:
        raise Damaged(f"{where}: is empty")
    if any(len(line) != len(lines[0]) for line in lines):
        raise Damaged(f"{where}: not a table; every line needs the header's columns")
    return lines[0], lines[1:]


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file; UserError when it is absent or no table."""
    try:
        return parse_csv(path.read_bytes().decode("utf-8-sig"), str(path))
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"no file {path}") from None
    except UnicodeDecodeError as error:
        raise Damaged(f"{path}: not UTF-8 text: {error.reason}") from None
