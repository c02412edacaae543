"""The sections of the page about a competition's images; each is None where there is nothing to say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..page import Figure, Grid, Section, Table, Tile, charts, histogram, number, percent, thumbnail
from .measure import INVISIBLE, Measures

TILES = 8  # of either end of a scale
GROUPS = 24  # of duplicates that are shown; images.csv has all
SIZES = 20


@dataclass(frozen=True)
class Data:
    """The images of a competition, measured; groups of duplicates are lists of positions."""

    competition: str
    folder: Path
    ignored: int
    class_names: Sequence[str]
    truth: Sequence[int] | None
    measured: Sequence[Measures]
    exact: Sequence[Sequence[int]]
    near: Sequence[Sequence[int]]

    @cached_property
    def whole(self) -> list[Measures]:
        return [one for one in self.measured if not one.problem]

    @cached_property
    def broken(self) -> list[Measures]:
        return [one for one in self.measured if one.problem]

    @cached_property
    def sizes(self) -> Counter:
        return Counter((one.width, one.height) for one in self.whole)

    @cached_property
    def resolution(self) -> int:
        """Median of the images' effective resolution."""
        return int(np.median([one.resolution for one in self.whole])) if self.whole else 0

    @cached_property
    def side(self) -> int:
        """Median of the images' shorter side."""
        return int(np.median([min(one.width, one.height) for one in self.whole])) if self.whole else 0

    @cached_property
    def not_square(self) -> int:
        return sum(one.width != one.height for one in self.whole)


def cards(data: Data) -> list[tuple[str, str, str]]:
    """The headline numbers: (number, name, remark)."""
    size = sum(one.size for one in data.whole) / 1e6
    made = [(f"{len(data.measured):,}", "images", f"{size:,.1f} MB, {data.ignored} other files ignored")]
    if data.whole:
        (width, height), count = data.sizes.most_common(1)[0]
        made.append((f"{width} × {height}", "most common size", f"{count / len(data.whole):.1%} of the images"))
        made.append((f"{data.resolution} px", "effective resolution", f"median, of {data.side} px"))
    made.append((str(len(data.exact)), "groups of identical files", f"{len(data.near)} more of near duplicates"))
    made.append((str(len(data.broken)), "damaged files", "all named below" if data.broken else ""))
    return made


def summary(data: Data) -> list[str]:
    """The terminal's few lines."""
    sizes = ", ".join(f"{w}x{h} ({n})" for (w, h), n in data.sizes.most_common(3))
    return [
        f"{len(data.measured)} images, {len(data.broken)} damaged, {data.ignored} other files ignored",
        f"{len(data.sizes)} sizes: {sizes}; {data.not_square} not square",
        f"effective resolution {data.resolution} of {data.side} pixels (median)",
        f"{len(data.exact)} groups of identical files, {len(data.near)} more of near duplicates",
    ]


def every(data: Data) -> list[Section]:
    """All sections that there is something to say in."""
    makers = (damage, classes, sizes, resolution, brightness, duplicates)
    return [section for make in makers if (section := make(data))]


def damage(data: Data) -> Section | None:
    """Every file that cannot be read."""
    if not data.broken:
        return None
    rows = [(one.name, one.problem) for one in data.broken]
    return Section(
        "Damaged files",
        "Replace or remove them: nothing can be predicted for them.",
        [Table(("file", "problem"), rows)],
    )


def classes(data: Data) -> Section | None:
    """Images per class, where the truth is known."""
    if data.truth is None:
        return None
    counts = Counter(data.truth)
    rows = histogram(data.class_names, [counts[label] for label in range(len(data.class_names))])
    return Section("Classes", "How many images each class has.", [Table(("class", "images", "share"), rows)])


def sizes(data: Data) -> Section | None:
    """Pixels, formats and modes."""
    if not data.whole:
        return None
    total = len(data.whole)
    rows = [
        (number(w), number(h), number(w / h, f"{w / h:.2f}"), number(count), percent(count / total))
        for (w, h), count in data.sizes.most_common(SIZES)
    ]
    kinds = Counter((one.format, one.mode) for one in data.whole)
    modes = [(kind, mode, number(count), percent(count / total)) for (kind, mode), count in kinds.most_common()]
    more = f" The {SIZES} most common of {len(data.sizes)} sizes." if len(data.sizes) > SIZES else ""
    note = f"{data.not_square:,} of {total:,} images are not square: a squash distorts them, a crop cuts them.{more}"
    return Section(
        "Sizes and modes",
        note,
        [
            Table(("width", "height", "aspect", "images", "share"), rows),
            Table(("format", "mode", "images", "share"), modes),
        ],
    )


def resolution(data: Data) -> Section | None:
    """How much detail the files really hold."""
    if not data.whole:
        return None
    values = [one.resolution for one in data.whole]
    share = data.resolution / max(1, data.side)
    verdict = " Most images were enlarged or are blurred; sharpening may help." if share < 0.5 else ""
    note = (
        f"The shorter side to which an image can be reduced before more than {INVISIBLE:g} of 255 grey levels "
        f"(root mean square) are lost. Median {data.resolution} of {data.side} pixels.{verdict}"
    )
    figure = Figure(charts.histogram(values, "effective resolution, pixels", "resolution"), width=480)
    return Section("Effective resolution", note, [figure, _ends(data, "resolution", "{} px")])


def brightness(data: Data) -> Section | None:
    """How dark and bright the images are."""
    if not data.whole:
        return None
    figure = Figure(
        charts.histogram([one.brightness for one in data.whole], "mean grey level", "brightness"), width=480
    )
    return Section(
        "Brightness",
        "Mean grey level, 0 black to 255 white; the darkest and the brightest images.",
        [figure, _ends(data, "brightness", "{:.0f}")],
    )


def duplicates(data: Data) -> Section | None:
    """Images that are there more than once, and with truth those that contradict themselves."""
    if not data.exact and not data.near:
        return None
    blocks = []
    for what, groups in (("identical", data.exact), ("near", data.near)):
        tiles = [
            _tile(data, position, f"{what} {n}", "" if data.truth is None else data.class_names[data.truth[position]])
            for n, group in enumerate(groups[:GROUPS], 1)
            for position in group
        ]
        blocks += [Grid(tiles)] if tiles else []
    note = "Identical: the same bytes. Near: other files that look the same. images.csv names all of them."
    if data.truth is not None:
        torn = sum(len({data.truth[position] for position in group}) > 1 for group in [*data.exact, *data.near])
        note += f" {torn} groups hold different true classes."
    return Section("Duplicates", note, blocks)


def _ends(data: Data, measure: str, form: str) -> Grid:
    """The images with the lowest and the highest value of a measure."""
    positions = [position for position, one in enumerate(data.measured) if not one.problem]
    ordered = sorted(positions, key=lambda position: getattr(data.measured[position], measure))
    shown = ordered if len(ordered) <= 2 * TILES else ordered[:TILES] + ordered[-TILES:]
    return Grid([_tile(data, p, form.format(getattr(data.measured[p], measure))) for p in shown])


def _tile(data: Data, position: int, caption: str, detail: str = "") -> Tile:
    name = data.measured[position].name
    return Tile(thumbnail(data.folder / name), caption, " ".join([name, detail]).strip(), name)
