"""Verb predict: labels and scores of a folder of images, without a competition."""

import itertools
import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..chain.csv_format import warn_of_formulas
from ..chain.task import Runtime
from ..core.console import progress, say, warn
from ..core.errors import Damaged, Exists, UserError
from ..core.files import atomic_file
from ..core.tables import csv_lines, table
from ..images.decoding import decode
from ..images.listing import list_images, warn_of_deeper
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
    parser.add_argument("--out", help="FILE.csv or FILE.jsonl (default: results.csv, or the next free results-N.csv)")


def run(runtime: Runtime, args: Arguments) -> None:
    predict(runtime, asked_model(runtime, args), args.images, args.labels, args.template, args.top, args.out)


def predict(
    runtime: Runtime, model: str, images: str, labels: str, template: str | None, top: int, out: str | None
) -> Path:
    """Write `out` (.csv or .jsonl; None: a new results.csv) for the images of a folder or glob in natural order.

    Damaged images are warned of and left out; they make a UserError once everything else is written.
    """
    from ..classifier import TEMPLATE, Classifier

    root = runtime.project.root
    out = out or _free(root)
    target, names = root / out, names_from(root, labels, "LABELS")
    if target.suffix not in (".csv", ".jsonl"):
        raise UserError(f"OUT={out}: must end in .csv or .jsonl")
    if target.exists():
        raise Exists(f"OUT={out} is already there and is not overwritten; remove it or give another OUT=")
    files = list_images(str(root / images), "IMAGES")
    warn_of_deeper(files, images)
    classifier = Classifier(runtime, model)
    damaged, first, counts = [], [], Counter()
    text = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    with atomic_file(target) as temporary, open(temporary, "w", **text) as file:
        write = _csv_writer(file) if target.suffix == ".csv" else _jsonl_writer(file)
        for name, found in _classified(runtime, classifier, files, (names, template or TEMPLATE, top)):
            if isinstance(found, UserError):
                warn(str(found))
                damaged.append(name)
                continue
            write(name, found)
            counts[found[0]["label"]] += 1
            if len(first) < SHOWN:
                first.append((name, found[0]["label"], f"{found[0]['score']:.4f}"))
        if not counts:
            raise Damaged(f"IMAGES={images}: none of the {len(damaged)} images could be read; nothing is written")
    _print(first, counts)
    if target.suffix == ".csv":
        warn_of_formulas([*files.ids, *names])
    say("predict", model, f"{counts.total()} images, {len(names)} labels: {target}")
    if damaged:
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


def _classified(runtime: Runtime, classifier, files, question: tuple) -> Iterator[tuple[str, list | UserError]]:
    """(id, what the classifier says or why the image cannot be read), holding one batch at a time."""

    def read(path: str):
        try:
            image = decode(path)
        except UserError as error:
            return error
        return classifier.pixels(image)

    paths = files.paths()
    with ThreadPoolExecutor(runtime.threads) as pool, progress("predict", "image", len(paths)) as bar:
        for start in range(0, len(paths), runtime.batch):
            pixels = list(pool.map(read, paths[start : start + runtime.batch]))
            answers = iter(classifier.classify([p for p in pixels if not isinstance(p, UserError)], *question))
            for name, read_as in zip(files.ids[start : start + runtime.batch], pixels, strict=True):
                yield name, read_as if isinstance(read_as, UserError) else next(answers)
            bar.update(len(pixels))


def _csv_writer(file):
    file.write(csv_lines([("image", "rank", "label", "score")]))
    return lambda name, found: file.write(
        csv_lines((name, rank, one["label"], f"{one['score']:.6g}") for rank, one in enumerate(found, 1))
    )


def _jsonl_writer(file):
    return lambda name, found: file.write(json.dumps({"image": name, "labels": found}, ensure_ascii=False) + "\n")


def _print(first: list[tuple], counts: Counter) -> None:
    print(table(("image", "label", "score"), first))
    if counts.total() > len(first):
        print(f"... {counts.total() - len(first)} more")
    print()
    print(table(("label", "images"), counts.most_common()))
