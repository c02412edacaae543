"""Self-contained HTML pages: sections made of a few kinds of blocks -> one file without any request.

A verb makes `Section`s of `Table`, `Matrix`, `Grid`, `Figure` and `Details`; page.html knows how each kind looks,
page.css how all of it looks, page.js sorts tables. Names and captions are data: they are escaped.
"""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from ...core.console import say
from ...core.errors import UserError
from ...core.files import atomic_file
from ...images.decoding import decode

THUMBNAIL = 208  # pixels of the longer side: shown at half of it until it is enlarged


@dataclass(frozen=True)
class Text:
    """Text of a table with what it sorts by, and the length (0 to 1) of a bar behind it."""

    text: str
    value: float | None = None
    bar: float | None = None

    @property
    def sort_by(self) -> float | str:
        return self.text if self.value is None else self.value


def number(value: float, text: str | None = None, bar: float | None = None) -> Text:
    """A cell that is sorted and aligned as a number."""
    return Text(f"{value:,}" if text is None else text, float(value), bar)


def percent(share: float, bar: bool = True, digits: int = 1) -> Text:
    """A share as a percentage, with a bar of that length; a dash for NaN, a share of nothing."""
    if math.isnan(share):
        return number(-1, "\u2013")
    return Text(f"{share:.{digits}%}", float(share), float(share) if bar else None)


def histogram(names: Sequence[str], counts: Sequence[int]) -> list[tuple[str | Text, ...]]:
    """Rows (name, count, share) of a table; the bar of the largest count is full."""
    total, most = max(1, sum(counts)), max(1, *counts)
    return [
        (name, number(int(count)), number(count / total, f"{count / total:.1%}", count / most))
        for name, count in zip(names, counts, strict=True)
    ]


@dataclass(frozen=True)
class Table:
    """Rows of strings and `Text`s; a click on a column's head sorts by it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    kind: Literal["table"] = "table"

    @property
    def cells(self) -> list[list[Text]]:
        return [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [all(row[c].value is not None for row in self.cells) for c in range(len(self.columns))]


@dataclass(frozen=True)
class Matrix:
    """A heat map with its numbers: `texts` and `shades` (0 to 1) by row and column; the diagonal has its own colour."""

    rows: Sequence[str]
    columns: Sequence[str]
    texts: Sequence[Sequence[str]]
    shades: Sequence[Sequence[float]]
    corner: str = ""
    kind: Literal["matrix"] = "matrix"


@dataclass(frozen=True)
class Tile:
    """One image of a grid: a data URI with a caption, its file's name, and perhaps whether it is right."""

    image: str
    caption: str
    detail: str = ""
    name: str = ""
    state: Literal["", "right", "wrong"] = ""


@dataclass(frozen=True)
class Grid:
    """Thumbnails, perhaps under a title; a click on one enlarges it."""

    tiles: Sequence[Tile]
    title: str = ""
    kind: Literal["grid"] = "grid"


@dataclass(frozen=True)
class Figure:
    """A drawing of charts.py (inline SVG), at most `width` pixels wide."""

    svg: str
    caption: str = ""
    width: int = 560
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True)
class Details:
    """Long text behind a line that opens it."""

    summary: str
    text: str
    kind: Literal["details"] = "details"


Block = Table | Matrix | Grid | Figure | Details


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on how to read what follows, and its blocks; the sections of a part follow its own."""

    title: str
    note: str
    blocks: Sequence[Block] = ()
    part: str = ""

    @property
    def anchor(self) -> str:
        return "-".join(f"{self.part} {self.title}".lower().split())


def thumbnail(path: str | Path, side: int = THUMBNAIL) -> str:
    """An image file as a small JPEG data URI; a grey tile where it cannot be read."""
    return small_picture(partial(decode, path), side)


def small_picture(open_image: Callable[[int], Image.Image], side: int = THUMBNAIL) -> str:
    """What `open_image(side)` gives as a small JPEG data URI; a grey tile where it raises UserError."""
    try:
        small = open_image(side)
    except UserError:
        small = Image.new("RGB", (side, side), "grey")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def write(
    path: Path,
    title: str,
    subtitle: str,
    cards: Sequence[tuple[str, str, str]],
    sections: Sequence[Section],
    notes: Sequence[str] = (),
) -> None:
    """Write a page; `cards` are (number, what it is, remark) on top."""
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        cards=cards,
        sections=sections,
        notes=notes,
        css=(here / "page.css").read_text(encoding="utf-8"),
        js=(here / "page.js").read_text(encoding="utf-8"),
    )
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def said(target: Path) -> Path:
    """Tell where a page is."""
    say("report", target.stem, f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return target
