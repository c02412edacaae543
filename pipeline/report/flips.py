"""Flips with pictures: which images have another label than before, by pair of classes.

Shown in a report, against the newest earlier submission and the best one, and on a page and in a CSV of `make diff`.
"""

from pathlib import Path

import numpy as np

from ..chain.csv_format import CsvFormat
from ..chain.task import CompetitionTask
from ..core.console import say
from ..core.files import atomic_file
from ..core.tables import csv_text
from . import collect, page
from .page import Grid, Section, Table, number
from .result import Change, Result
from .tiles import tile

EACH = 24  # pictures of a pair of classes
MOST = 240  # pictures of a change


def write(task: CompetitionTask, before: int, after: int) -> Path:
    """Write reports/<competition>/diff-<before>-<after>.html and .csv: all images whose label is another."""
    task, result = collect.labels_of(task, after)
    change = collect.change_from(task, before, result.labels)
    target = task.reports / f"diff-{before:03d}-{after:03d}.html"
    values, ids = CsvFormat(task).labels, CsvFormat(task).ids
    rows = [(ids[row], values[change.before[row]], values[change.after[row]]) for row in _rows(change)]
    with atomic_file(target.with_suffix(".csv")) as temporary:
        temporary.write_bytes(csv_text(("image", "before", "after"), rows).encode("utf-8", "surrogateescape"))
    title = f"Flips from {change.against} to {result.stem.replace('-', ' ', 1)}"
    page.write(target, title, result.subtitle, cards(result, change), [of_change(result, change)])
    say("diff", f"{before} {after}", f"the images: {target}, {target.with_suffix('.csv').name}")
    return target


def cards(result: Result, change: Change) -> list[tuple[str, str, str]]:
    """The headline numbers of a change."""
    made = [(f"{change.flipped:,}", "labels flipped", f"{change.flipped / change.images:.2%} of {change.images:,}")]
    if result.truth is not None:
        better, worse = _judged(result, change, _rows(change))
        made.append((f"{better - worse:+,}", "more right labels", f"{better:,} better, {worse:,} worse"))
    if change.noise is not None:
        made.append(
            (f"{change.noise:.2%}", "noise of the difference", f"one standard error, board of {change.board:,}")
        )
    return made


def sections(result: Result) -> list[Section]:
    """A section for each submission that the result is compared with."""
    return [of_change(result, change) for change in result.changes if change.flipped]


def of_change(result: Result, change: Change) -> Section:
    """The pairs of classes, commonest first, with pictures of each."""
    names, pairs = result.class_names, change.pairs()
    columns, rows = ["before", "after", "images"], []
    for before, after, images in pairs:
        judged = () if result.truth is None else map(number, _judged(result, change, images))
        rows.append((names[before], names[after], number(len(images)), *judged))
    if result.truth is not None:
        columns += ["better", "worse"]
    blocks, left = [Table(columns, rows)] if pairs else [], MOST
    for before, after, images in pairs:
        shown = images[: min(EACH, left)]
        left -= len(shown)
        if len(shown):
            more = f", {len(shown)} of them shown" if len(shown) < len(images) else ""
            title = f"{names[before]} \u2192 {names[after]}: {len(images):,}{more}"
            blocks.append(Grid([_tile(result, change, row) for row in shown], title))
    note = f"Images whose label is not that of {change.against}: the class before \u2192 the class now."
    return Section(f"Flips since {change.number:03d}", note if pairs else "No label differs.", blocks)


def _tile(result: Result, change: Change, row: int):
    if result.truth is None:
        return tile(result, row, "")
    right = result.truth[row]
    state = {change.after[row]: "right", change.before[row]: "wrong"}.get(right, "")
    detail = {"right": "better", "wrong": "worse", "": f"both wrong: {result.class_names[right]}"}[state]
    return tile(result, row, "", detail, state)


def _judged(result: Result, change: Change, rows: np.ndarray) -> tuple[int, int]:
    """How many of the rows are right now only, and were right before only."""
    truth = result.truth[rows]
    return int((change.after[rows] == truth).sum()), int((change.before[rows] == truth).sum())


def _rows(change: Change) -> np.ndarray:
    return np.flatnonzero(change.before != change.after)
