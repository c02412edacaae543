"""Verb new: the files of a new competition, to be edited."""

import csv
import math
import os
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..chain.csv_format import ID_OF
from ..chain.task import CompetitionTask, Runtime
from ..core.console import next_step, say
from ..core.digests import content_digest, read_memo, write_memo
from ..core.errors import Exists, Mismatch, NotFound, UserError, prefixed
from ..core.files import atomic_file
from ..core.tables import read_csv
from ..images.listing import images_of, warn_of_deeper
from ..models import has_text
from ..models.hub import download_gb
from ..recipes import HEAD, Project, checked_class_names, checked_name, read_json
from ..recipes.prompts import file_stem
from ._options import Arguments
from .models import ON_DISK, weights_state

HELP = "write the files of a new competition"
USES = ("competition",)
COMPETITION = """\
# Everything about the competition. Keys: docs/recipes.md.
images: {images}
classes: {classes}   # the order is the label
ensemble: {name}
columns: {columns}   # CSV columns: position | stem | file_name | path, and label | class_name | probability
{top}{sample}
# public_board: 4050   # images that the public leaderboard scores
rules:
  test_set: false   # true: statistics of the unlabelled test images may be used
  labels: false     # true: models trained on labelled images may be used
"""
SHARED = """\
# Templates of every class; {} is the class's name.
templates:
  - "{}"
  - a photo of a {}.
  - a blurry photo of a {}.
  - a bad photo of a {}.
  - a close-up photo of a {}.
"""
CLASS = """\
# name: how this class is called in templates, if not {text}
# aliases: [another name]
# prompts:
#   - a whole sentence of its own
name: {text}
"""
ENSEMBLE = """\
# Members are model@preprocess: weight. Models are in models.yaml, preprocess recipes in preprocess/.
members:
  {member}: 1
threshold: 0
pooling: mean
"""

NO_SAMPLE = "# sample_submission: data/{name}/sample_submission.csv   # then ids and order are checked against it"
ID_KINDS = ("file_name", "stem", "path", "position")  # a name says more than a number that it happens to be
COLUMNS = {"id": "file_name", "label": "label"}
FIRST_MODEL = "openai-b32"  # where nothing is on disk: small, and known well
SHOWN = 20  # files that are listed


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--images", help="folder or glob of the images")
    parser.add_argument("--classes", help="a,b,c or a JSON file with a list")
    parser.add_argument("--sample", metavar="FILE", help="the sample submission: columns and ids are taken from it")
    parser.add_argument(
        "--undo", action="store_true", help="remove what was written for COMPETITION and not changed since"
    )


def run(runtime: Runtime, args: Arguments) -> None:
    if args.undo:
        undo(runtime.project, args.competition)
        return
    if not args.images or not args.classes:
        raise UserError("give IMAGES=folder and CLASSES=a,b,c (or UNDO=1 to remove what was written for COMPETITION)")
    write(runtime.project, args.competition, args.images, args.classes, args.sample)


def write(project: Project, name: str, images: str, classes: str, sample: str | None = None) -> None:
    """Write competitions/<name>.yaml, ensembles/<name>.yaml and prompts/<name>/; never over existing files.

    Columns and ids are those of a sample submission where there is one. The ensemble begins with the best model that is
    on disk.
    """
    checked_name(name, "competition")
    class_names = names_from(project.root, classes, "CLASSES")
    found = images_of(images, project.root, "IMAGES")
    warn_of_deeper(found, images)
    columns = _columns(project.root / sample, found.ids, class_names) if sample else COLUMNS
    top = _top(project.root / sample, columns, class_names) if sample else None
    member, where_from = _first_member(project)
    quoted = {class_name: _quoted(class_name) for class_name in class_names}
    stems = [file_stem(class_name) for class_name in class_names]
    twice = sorted(stem for stem, count in Counter(stems).items() if count > 1)
    if twice:
        raise UserError(f"CLASSES: several classes would share the files {twice}")
    listed = f"[{', '.join(quoted.values())}]"
    files = {
        f"competitions/{name}.yaml": COMPETITION.format(
            images=_quoted(images),
            classes=listed,
            name=name,
            columns="{" + ", ".join(f"{_quoted(column)}: {value}" for column, value in columns.items()) + "}",
            top=f"top: {top}   # labels in the label column, the best first\n" if top else "",
            sample=f"sample_submission: {_quoted(sample)}" if sample else NO_SAMPLE.format(name=name),
        ),
        f"ensembles/{name}.yaml": ENSEMBLE.format(member=member),
        f"prompts/{name}/_shared.yaml": SHARED,
    }
    for stem, text in zip(stems, quoted.values(), strict=True):
        files[f"prompts/{name}/{stem}.yaml"] = CLASS.format(text=text)
    existing = [file for file in files if (project.root / file).exists()]
    if existing:
        raise Exists(f"already there, nothing is overwritten: {', '.join(existing)}")
    for file, text in files.items():
        with atomic_file(project.root / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_memo(_memo(project, name), {file: content_digest(text.encode()) for file, text in files.items()})
    for file in list(files)[:SHOWN]:
        print(f"  wrote {file}")
    if len(files) > SHOWN:
        print(f"  wrote {len(files) - SHOWN} more in prompts/{name}/")
    prompts = len(CompetitionTask(project, name).prompts.prompts)
    say("new", name, f"{len(found.ids)} images, {len(class_names)} classes, {prompts} prompts; {member}, {where_from}")
    say("new", name, f"columns {', '.join(f'{column} ({value})' for column, value in columns.items())}")
    next_step(f"edit these files, then make plan COMPETITION={name} (make new ... UNDO=1 removes them)")


def undo(project: Project, name: str) -> None:
    """Remove the files that `write` made and nobody changed since; what was changed stays, and is said."""
    made = read_memo(_memo(project, checked_name(name, "competition")))
    if not made:
        raise NotFound(f"nothing is known of competition {name!r} that make new wrote; remove its files by hand")
    there = [file for file in made if (project.root / file).is_file()]
    changed = [file for file in there if content_digest((project.root / file).read_bytes()) != made[file]]
    for file in there:
        if file not in changed:
            (project.root / file).unlink()
            print(f"  removed {file}")
    folder = project.root / "prompts" / name
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    _memo(project, name).unlink()
    kept = f"; changed since, and kept: {', '.join(changed)}" if changed else ""
    say("new", name, f"{len(there) - len(changed)} files removed{kept}")


def _memo(project: Project, name: str) -> Path:
    """What was written for a competition: {file: digest of its content}."""
    return project.root / "cache" / name / "new.json"


def _first_member(project: Project) -> tuple[str, str]:
    """The model with prompts that is on disk and does best on ImageNet, as a member; else a small one to download."""
    there = {
        name: entry
        for name, entry in project.models.items()
        if entry.family != HEAD and not (entry.weights or "").startswith("demo/") and has_text(name, entry)
    }
    there = {name: entry for name, entry in there.items() if weights_state(entry, project) == ON_DISK}
    if there:
        name = max(there, key=lambda one: there[one].imagenet or 0)
        return f"{name}@{there[name].preprocess}", "which is on disk"
    entry = project.model(FIRST_MODEL)
    return f"{FIRST_MODEL}@{entry.preprocess}", f"a download of {download_gb(entry)} GB: make models lists others"


def _columns(path: Path, images: Sequence[str], class_names: Sequence[str]) -> dict[str, str]:
    """{column: what it holds} of a sample submission; UserError when its ids are not those of the images."""
    header, rows = read_csv(path)
    kinds = {
        kind: {ID_OF[kind](position, name) for position, name in enumerate(images)} if rows else set()
        for kind in ID_KINDS
    }
    for at, column in enumerate(header[:2]):
        kind = next((kind for kind, ids in kinds.items() if {row[at] for row in rows} == ids), None)
        if kind and rows:
            others = [name for name in header if name != column]
            if len(others) > 1:
                return {column: kind, _classes_in(others, class_names, path): "probability"}
            said = {row[1 - at] for row in rows}
            words = {word for value in said for word in value.split(" ")}
            label = "class_name" if said & set(class_names) or words <= set(class_names) else "label"
            return {name: kind if name == column else label for name in header}
    raise Mismatch(
        f"SAMPLE={path}: {len(rows)} rows, first {rows[0] if rows else 'none'}, and {len(images)} images, first "
        f"{images[0]!r}: neither column has their names, stems, paths or positions"
    )


def _classes_in(columns: list[str], class_names: Sequence[str], path: Path) -> str:
    """How columns are called after the classes; UserError where they are not, or in another order."""
    if columns == list(class_names):
        return "{class_name}"
    prefix = os.path.commonprefix(columns)
    if columns == [f"{prefix}{number}" for number in range(len(class_names))]:
        return f"{prefix}{{label}}"
    more = (
        "the order of CLASSES must be that of the columns" if set(columns) == set(class_names) else "none is a class's"
    )
    raise Mismatch(f"SAMPLE={path}: {len(columns)} columns of predictions ({', '.join(columns[:5])}): {more}")


def _top(path: Path, columns: dict[str, str], class_names: Sequence[str]) -> int | None:
    """How many labels its label column holds, where that is more than one."""
    header, rows = read_csv(path)
    label = next(column for column, kind in columns.items() if kind not in ID_KINDS)
    if label not in header:
        return None
    known = {*class_names, *map(str, range(len(class_names)))}
    several = [row[header.index(label)].split(" ") for row in rows]
    most = max(map(len, several))
    return most if most > 1 and all(len(said) == most and known.issuperset(said) for said in several) else None


def _quoted(text: str) -> str:
    """As YAML on one line, in double quotes."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).rstrip("\n")


def names_from(root: Path, text: str, variable: str) -> list[str]:
    """Class names from 'a,b,c' or from a JSON file with a list; UserError names the variable they were given in."""
    where = f"{variable}={text}"
    if text.endswith(".json"):
        with prefixed(where):
            names = read_json(root / text)
    else:
        # as in a CSV: a name with a comma stands in double quotes
        names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
        if text.startswith("[") or len(names) < 2:
            raise UserError(f"{where}: give at least two names, a,b,c, or a JSON file with a list of them")
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"{where}: an empty name; give a,b,c or a JSON file with a list of names")
    return list(checked_class_names(names, where))
