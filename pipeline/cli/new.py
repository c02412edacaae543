"""Verb new: the files of a new competition, to be edited."""

import csv
import math
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

import yaml

from ..chain.task import CompetitionTask, Runtime
from ..core.console import say
from ..core.errors import Exists, UserError, prefixed
from ..core.files import atomic_file
from ..images.listing import list_images
from ..recipes import Project, checked_class_names, checked_name, read_json
from ..recipes.prompts import file_stem
from ._options import Arguments

HELP = "write the files of a new competition"
USES = ("competition",)
COMPETITION = """\
# Everything about the competition. Keys: docs/recipes.md.
images: {images}
classes: {classes}   # the order is the label
ensemble: {name}
columns: {{id: file_name, label: label}}   # CSV columns: position | stem | file_name, and label | class_name
# sample_submission: data/{name}/sample_submission.csv   # then ids and order are checked against it
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
  openai-b32@crop224: 1
threshold: 0
pooling: mean
"""

SHOWN = 20  # files that are listed


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--images", required=True, help="folder or glob of the images")
    parser.add_argument("--classes", required=True, help="a,b,c or a JSON file with a list")


def run(runtime: Runtime, args: Arguments) -> None:
    write(runtime.project, args.competition, args.images, args.classes)


def write(project: Project, name: str, images: str, classes: str) -> None:
    """Write competitions/<name>.yaml, ensembles/<name>.yaml and prompts/<name>/; never over existing files."""
    checked_name(name, "competition")
    class_names = names_from(project.root, classes, "CLASSES")
    found = list_images(str(project.root / images), "IMAGES")
    quoted = {class_name: _quoted(class_name) for class_name in class_names}
    stems = [file_stem(class_name) for class_name in class_names]
    twice = sorted(stem for stem, count in Counter(stems).items() if count > 1)
    if twice:
        raise UserError(f"CLASSES: several classes would share the files {twice}")
    listed = f"[{', '.join(quoted.values())}]"
    files = {
        f"competitions/{name}.yaml": COMPETITION.format(images=_quoted(images), classes=listed, name=name),
        f"ensembles/{name}.yaml": ENSEMBLE,
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
    for file in list(files)[:SHOWN]:
        print(f"  wrote {file}")
    if len(files) > SHOWN:
        print(f"  wrote {len(files) - SHOWN} more in prompts/{name}/")
    prompts = len(CompetitionTask(project, name).prompts.prompts)
    say(
        "new",
        name,
        f"{len(found.ids)} images, {len(class_names)} classes, {prompts} prompts. "
        f"Edit these files, then: make submit COMPETITION={name}",
    )


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
