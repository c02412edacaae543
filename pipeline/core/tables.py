"""Tables: for the terminal, for Markdown, and as CSV that a leaderboard reads; and CSV as users write it."""

import csv
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

from . import console
from .errors import Damaged, NotFound

NARROW = 8  # characters that a column keeps
LONG = 30  # of a word that is broken before others are
CHUNK = 4096  # rows that are held as such
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")  # with its end
NUMBER = re.compile(r"[-+]?\d")  # how a cell begins that holds a number


def table(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Columns of text, padded; those of numbers to the right.

    Nothing is cut: in a table that would be wider than may be printed, the cells of its widest columns go on below.
    """
    return "\n".join(table_rows(header, rows))


def table_rows(header: Sequence[str], rows: Sequence[Sequence]) -> list[str]:
    """A table's rows, the header first, each a line or several."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    columns = [list(column) for column in zip(*lines, strict=True)]
    numbers = [any(cells) and all(NUMBER.match(cell) for cell in cells if cell) for _, *cells in columns]
    widths = _fitting(columns, console.width())
    return ["\n".join(_row(line, widths, numbers)) for line in lines]


def _fitting(columns: list[list[str]], most: int) -> list[int]:
    """Widths of columns in a line of `most` characters: the widest give way, down to their words, then to 8."""
    widths = [max(map(len, column)) for column in columns]
    words = [max(len(word) for cell in column for word in cell.split(" ")) for column in columns]
    for least in ([min(length, LONG) for length in words], [NARROW] * len(columns)):
        while sum(widths) + 2 * (len(widths) - 1) > most:
            wide = [n for n, width in enumerate(widths) if width > least[n]]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _row(line: list[str], widths: list[int], numbers: list[bool]) -> Iterator[str]:
    """The lines of text of one row."""
    cells = [
        textwrap.wrap(cell, width, break_on_hyphens=False) if len(cell) > width else [cell]
        for cell, width in zip(line, widths, strict=True)
    ]
    for parts in itertools.zip_longest(*cells, fillvalue=""):
        padded = zip(parts, widths, numbers, strict=True)
        yield "  ".join(part.rjust(width) if right else part.ljust(width) for part, width, right in padded).rstrip()


def markdown(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """The lines of a Markdown table, without a line end after the last."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *cells])


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """CSV with LF line ends; fields are quoted only where they must be."""
    return csv_lines(itertools.chain([header], rows))


def csv_lines(rows: Iterable[Sequence]) -> str:
    """Rows as CSV, without a header."""
    lines: list[str] = []
    parts, source = [], iter(rows)
    # a field with a lone CR is quoted only where CR is in the line end
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
    while chunk := list(itertools.islice(source, CHUNK)):
        writer.writerows(chunk)
        parts.append("".join(line.removesuffix("\r\n") + "\n" for line in lines))
        lines.clear()
    return "".join(parts)


def parse_csv(text: str, where: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV; UserError when it is no table."""
    lines = csv_rows(text, where)
    return next(lines), list(lines)


def csv_rows(text: str, where: str) -> Iterator[list[str]]:
    """The lines of a CSV as they are asked for, the header first; UserError when it is no table."""
    columns = 0
    try:
        for line in csv.reader((line[0] for line in LINE.finditer(text)), strict=True):
            if not line:
                continue
            columns = columns or len(line)
            if len(line) != columns:
                raise Damaged(f"{where}: not a table; every line needs the header's columns")
            yield line
    except csv.Error as error:
        raise Damaged(f"{where}: not a CSV file: {error}") from None
    if not columns:
        raise Damaged(f"{where}: is empty")


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file; UserError when it is absent or no table."""
    return parse_csv(csv_file(path), str(path))


def csv_file(path: Path) -> str:
    """The text of a CSV file; UserError when it is absent or no text."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"no file {path}") from None
    except UnicodeDecodeError as error:
        raise Damaged(f"{path}: not UTF-8 text: {error.reason}") from None
