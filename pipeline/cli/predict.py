"""Verb predict: labels and scores of a folder of images, without a competition."""

import itertools
import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..chain.csv_format import warn_of_formulas
from ..chain.task import Runtime
from ..core.console import progress, say, warn
from ..core.errors import Damaged, Exists, UserError
from ..core.extras import need
from ..core.files import atomic_file
from ..core.parquet import SUFFIX, Parts
from ..core.store import place
from ..core.tables import csv_lines, table
from ..images.listing import images_of, warn_of_deeper
from ._options import Arguments, asked_model, positive
from .new import names_from

HELP = "labels and scores of any folder of images, without a competition"
USES = ("model", "compute")
SHOWN = 10  # images in the terminal's table
NAMED = 20  # damaged images in the last line


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--images", required=True, help="folder or glob of the images")
    parser.add_argument("--labels", required=True, help="a,b,c or a JSON file with a list")
    parser.add_argument("--template", help="sentence around a label (default: a photo of a {}.)")
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="labels per image")
    parser.add_argument("--out", help="FILE.csv, FILE.jsonl or FOLDER.parquet (default: results.csv, or the next free)")


def run(runtime: Runtime, args: Arguments) -> None:
    predict(runtime, asked_model(runtime, args), args.images, args.labels, args.template, args.top, args.out)


def predict(
    runtime: Runtime, model: str, images: str, labels: str, template: str | None, top: int, out: str | None
) -> Path:
    """Write `out` (None: a new results.csv) for the images of a folder or glob in natural order.

    .csv and .jsonl are one file; .parquet is a folder of parts, which goes on where a run was stopped. Damaged images
    are warned of and left out; they make a UserError once everything else is written.
    """
    from ..classifier import TEMPLATE
    from ._predictions import Predictions

    root = runtime.project.root
    out = out or _free(root)
    target, names = place(out, root), names_from(root, labels, "LABELS")
    if target.suffix not in WRITERS:
        raise UserError(f"OUT={out}: must end in {', '.join(WRITERS)}")
    if runtime.ray and target.suffix != SUFFIX:
        raise UserError(f"OUT={out}: many machines write a table of parts; give OUT=name{SUFFIX}")
    if target.exists() and target.suffix != SUFFIX:
        raise Exists(f"OUT={out} is already there and is not overwritten; remove it or give another OUT=")
    files = images_of(images, root, "IMAGES")
    warn_of_deeper(files, images)
    told = Told(images)
    WRITERS[target.suffix](Predictions(runtime, model, files, names, template or TEMPLATE, top), target, told)
    told.show()
    if target.suffix == ".csv":
        warn_of_formulas(itertools.chain(files.ids, names))
    say("predict", model, f"{told.counts.total()} images, {len(names)} labels: {target}")
    if damaged := told.damaged:
        more = f" and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
        raise Damaged(
            f"{len(damaged)} of {len(files.ids)} images could not be read and are not in {target}: "
            f"{', '.join(damaged[:NAMED])}{more}"
        )
    return target


def _free(root: Path) -> str:
    """results.csv, or results-2.csv, results-3.csv, ... if that is there."""
    names = itertools.chain(["results.csv"], (f"results-{number}.csv" for number in itertools.count(2)))
    return next(name for name in names if not (root / name).exists())


@dataclass
class Told:
    """What is said of the answers: how often each label is the first, the first images, the damaged ones."""

    images: str
    counts: Counter = field(default_factory=Counter)
    first: list[tuple] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def add(self, name: str, label: str, score: float) -> None:
        self.counts[label] += 1
        if len(self.first) < SHOWN:
            self.first.append((name, label, f"{score:.4f}"))

    def check(self) -> None:
        if not self.counts:
            raise Damaged(f"IMAGES={self.images}: none of the {len(self.damaged)} images could be read")

    def show(self) -> None:
        print(table(("image", "label", "score"), self.first))
        if self.counts.total() > len(self.first):
            print(f"... {self.counts.total() - len(self.first)} more")
        print()
        print(table(("label", "images"), self.counts.most_common()))


def _text(line: Callable[[str, list[dict]], str], header: str = "") -> Callable:
    """What writes a file of text with a line, or some, for each image."""

    def write(predictions, target: Path, told: Told) -> None:
        total = len(predictions.images.ids)
        text = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
        with (
            atomic_file(target) as temporary,
            open(temporary, "w", **text) as file,
            progress("predict", "image", total) as bar,
        ):
            file.write(header)
            for name, found in predictions.rows(0, total):
                bar.update()
                if isinstance(found, UserError):
                    warn(str(found))
                    told.damaged.append(name)
                    continue
                file.write(line(name, found))
                told.add(name, found[0]["label"], found[0]["score"])
            told.check()

    return write


def _parts(predictions, target: Path, told: Told) -> None:
    """A part for each shard of images; those that are there are kept."""
    need("parquet", f"OUT={target.name}")
    import pyarrow.compute as pc

    total, rows = len(predictions.images.ids), predictions.runtime.shard_rows
    parts = Parts(target, predictions.made_from())
    todo = parts.missing(total, rows)
    if not todo:
        raise Exists(f"{target} is already there, whole, and is not overwritten; remove it or give another OUT=")
    left = sum(stop - start for start, stop in todo)
    if left < total:
        say("predict", target.name, f"{total - left} images are there, {left} are to do")
    with progress("predict", "image", left, hidden=bool(predictions.runtime.ray)) as bar:
        for start, stop, wrong in predictions.written(parts, todo):
            for error in wrong:
                warn(error)
            bar.update(stop - start)
    for found, facts in parts.read():
        told.damaged += facts["damaged"]
        first = found.slice(0, SHOWN - len(told.first))
        told.first += [(one["id"], one["labels"][0], f"{one['scores'][0]:.4f}") for one in first.to_pylist()]
        told.counts.update(
            {one["values"]: one["counts"] for one in pc.list_element(found["labels"], 0).value_counts().to_pylist()}
        )
    told.check()


def _csv_lines(name: str, found: list[dict]) -> str:
    return csv_lines((name, rank, one["label"], f"{one['score']:.6g}") for rank, one in enumerate(found, 1))


def _json_line(name: str, found: list[dict]) -> str:
    return json.dumps({"image": name, "labels": found}, ensure_ascii=False) + "\n"


WRITERS = {  # by the end of OUT's name
    ".csv": _text(_csv_lines, csv_lines([("image", "rank", "label", "score")])),
    ".jsonl": _text(_json_line),
    SUFFIX: _parts,
}
