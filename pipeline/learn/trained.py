"""What a training run leaves in trained/<name>/, a member like any other. Nothing is overwritten.

trained/<name>/training.json      recipe, digests, classes with their images, settings, history
trained/<name>/model.yaml         its entry as a model; written last, so a folder without it is not finished
"""

import ast
import inspect
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..core.console import say, warn
from ..core.digests import digest_of
from ..core.errors import Exists, UserError
from ..core.files import atomic_file
from ..models import heads
from ..models.heads import TrainingData
from ..recipes import NAME, Project
from ..recipes.training import Training
from . import training_set
from .training_set import TrainingSet

FOLDER = "trained"
LISTED = 8  # small classes named in a warning


@dataclass(frozen=True)
class Trained:
    """What a training run left in `folder`: `record` is its training.json."""

    name: str
    folder: Path
    record: dict

    @property
    def member(self) -> str:
        return f"{self.name}@{self.record['base'].partition('@')[2]}"


def check_names(project: Project, names: list[str], where: str) -> None:
    """UserError for what is no name, and for one that another model has: two of one name could not be told apart."""
    if not NAME.fullmatch(names[0]):
        raise UserError(f"{where}: {names[0]!r} is no name: letters, digits, '.', '_' and '-' only")
    for name in set(names) & set(project.models):
        file = project.model_file(name)
        if file != project.root / FOLDER / name / "model.yaml":
            raise Exists(f"{where}: {file} has a model called {name!r}; give the recipe another name")


def reused(project: Project, names: list[str], made_from: dict, where: str) -> list[Trained]:
    """The finished results of these names; none if one of them is still to be made. UserError if one is another."""
    known = [finished(project.root / FOLDER / name, made_from, where) for name in names]
    if not all(known):
        return []
    say("train", names[0], f"{known[0].folder} reused: same recipe, same data")
    return known


def finished(folder: Path, made_from: dict, where: str) -> Trained | None:
    """The result in a folder if it is made from this; UserError if it is another one.

    One that was made before `code` was noted is not asked for it.
    """
    if not (folder / "model.yaml").is_file():
        return None
    try:
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    known = {key: value for key, value in record.get("made_from", {}).items() if key == "code"}
    bare = {key: value for key, value in made_from.items() if key != "code"}
    if record.get("digest") != digest_of(bare | known):
        why = "with another recipe or on other data"
    elif known and known["code"] != made_from["code"]:
        why = "by other code of its method, which has changed since"
    else:
        return Trained(folder.name, folder, record)
    raise Exists(
        f"{where}: {folder} was trained {why}, and is not overwritten. "
        f"Give the recipe another name, or remove the folder: rm -r {folder}"
    )


def code_of(*modules: str) -> str:
    """Digest of what modules do, with those beside them that they import; comments, docstrings and layout are no part.

    A package's own `__init__` and other packages are none either: what they do has tests and versions of its own.
    """
    found, left = {}, list(modules)
    while left:
        name = left.pop()
        tree, beside = ast.parse(inspect.getsource(sys.modules[name])), name.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                parts = [node.module] if node.module else [one.name for one in node.names]
                left += [one for part in parts if (one := f"{beside}.{part}") in sys.modules and one not in found]
            if isinstance(getattr(node, "body", None), list):
                node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
        found[name] = ast.unparse(tree)
    return digest_of(found)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def classes(source: TrainingSet, train, validation) -> dict[str, dict[str, int]]:
    """Images per class; small ones are told."""
    total = len(source.class_names)
    images = (training_set.counts(part.labels, total) for part in (train, validation))
    parts = zip(source.class_names, *images, strict=True)
    found = {name: {"train": int(a), "validation": int(b)} for name, a, b in parts}
    small = sorted((n["train"], name) for name, n in found.items() if 0 < n["train"] < source.recipe.small)
    if small:
        named = ", ".join(f"{name} {images}" for images, name in small[:LISTED])
        warn(
            f"{len(small)} of {total} classes have fewer than {source.recipe.small} training images: {named}"
            f"{', ...' if small[LISTED:] else ''}; what is said of them is noise"
        )
    return found


def check_classes(recipe: Training, data: TrainingData, names: tuple[str, ...]) -> None:
    absent = [name for name, images in zip(names, data.counts.tolist(), strict=True) if not images]
    if absent and not heads.METHODS[recipe.method[0]].for_unseen:
        warn(f"no training image of {absent[:LISTED]}{' ...' if absent[LISTED:] else ''}: never predicted")


def head_entry(name: str, base: str) -> dict:
    """The entry of a head on the features of member `base`."""
    return {
        "family": "head",
        "base": str(base),
        "weights": f"{FOLDER}/{name}/head.safetensors",
        "preprocess": base.partition("@")[2],
    }


def finish(folder: Path, entry: dict, recipe: Training, record: dict) -> None:
    """Write the record, and then the entry that makes what is in the folder a model."""
    record = {"digest": digest_of(record["made_from"]), **record}
    trained_on = [f"{recipe.dataset}:{recipe.split}"]
    trained_on += [f"{recipe.dataset}:{recipe.validation}"] if isinstance(recipe.validation, str) else []
    written = yaml.safe_dump({folder.name: entry | {"trained_on": trained_on}}, sort_keys=False)
    for file, text in (
        ("training.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n"),
        ("model.yaml", written),
    ):
        with atomic_file(folder / file) as temporary:
            temporary.write_text(text, encoding="utf-8")


def say_chosen(name: str, what: str, base: str, record: dict, folder: Path) -> None:
    """Say what was chosen, and how good it is on validation images."""
    setting = ", ".join(f"{key} {value:.4g}" for key, value in record["setting"].items())
    measures = ", ".join(f"{key} {value:.3f}" for key, value in record["validation"].items() if key != "loss")
    say("train", name, f"{what} ({setting}) {base}; validation: {measures}; {folder}")
