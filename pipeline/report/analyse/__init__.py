"""Verb analyse: what a competition's images are like before any model sees them; one HTML page and one CSV."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ...chain.csv_format import CsvFormat
from ...chain.task import CompetitionTask
from ...core.console import progress, say, warn
from ...core.errors import UserError
from ...core.extras import need
from ...core.files import atomic_file
from ...core.tables import csv_text
from ...images.listing import ImageFiles
from .. import page

BATCH = 256  # images handed to the threads at a time
COLUMNS = (
    "image",
    "class",
    "bytes",
    "width",
    "height",
    "mode",
    "format",
    "brightness",
    "contrast",
    "resolution",
    "content",
    "duplicate_of",
    "near_duplicate_of",
    "problem",
)


def write(task: CompetitionTask) -> Path:
    """Write reports/<competition>/images.html and images.csv and print a summary."""
    need("report", "make analyse")
    from . import measure, sections

    truth, images = CsvFormat(task).solution, task.images
    if not isinstance(images, ImageFiles):
        raise UserError(f"{task.source}: analyse looks at images in files of a folder; copy some of them into one")
    measured = list(_measured(task, partial(measure.measure, max_pixels=task.policy.max_pixels)))
    data = sections.Data(
        task.name,
        images.folder,
        len(images.left_out),
        task.class_names,
        truth,
        measured,
        measure.exact_duplicates(measured),
        measure.near_duplicates(measured),
    )
    folder = task.project.root / "reports" / task.name
    with atomic_file(folder / "images.csv") as temporary:
        temporary.write_text(csv_text(COLUMNS, _rows(data)), encoding="utf-8", errors="surrogateescape")
    target = folder / "images.html"
    page.write(target, f"Images of {task.name}", f"{task.source}", sections.cards(data), sections.every(data))
    for line in sections.summary(data):
        say("analyse", task.name, line)
    for one in data.broken:
        warn(f"{one.name}: {one.problem}")
    say("analyse", task.name, f"{target} and images.csv beside it")
    return target


def _measured(task: CompetitionTask, measure) -> Iterator:
    """The measures of every image, in order."""
    names, paths = task.images.ids, task.images.paths()
    # decoding and transforms work outside the interpreter lock, so threads use all cores
    with ThreadPoolExecutor(task.threads) as pool, progress("analyse", "image", len(names)) as bar:
        for start in range(0, len(names), BATCH):
            for one in pool.map(measure, names[start : start + BATCH], paths[start : start + BATCH]):
                yield one
                bar.update()


def _rows(data) -> Iterator[list]:
    """The lines of images.csv."""
    first = {}
    for kind, groups in (("same", data.exact), ("near", data.near)):
        first |= {(kind, position): data.measured[group[0]].name for group in groups for position in group[1:]}
    for position, one in enumerate(data.measured):
        name = data.class_names[data.truth[position]] if data.truth else ""
        yield [
            one.name,
            name,
            one.size,
            one.width,
            one.height,
            one.mode,
            one.format,
            f"{one.brightness:.1f}",
            f"{one.contrast:.1f}",
            one.resolution,
            one.content,
            first.get(("same", position), ""),
            first.get(("near", position), ""),
            one.problem,
        ]
