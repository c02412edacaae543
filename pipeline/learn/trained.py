"""What a training run leaves in trained/<name>/, a member like any other. Nothing is overwritten.

trained/<name>/training.json      recipe, digests, classes with their images, settings, history
trained/<name>/model.yaml         its entry as a model; written last, so a folder without it is not finished
"""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..core.console import warn
from ..core.errors import UserError
from ..core.files import atomic_file
from ..models import heads
from ..models.heads import Data
from ..recipes import NAME, Project
from . import training_set
from .recipe import Training
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
            raise UserError(f"{where}: {file} has a model called {name!r}; give the recipe another name")


def finished(folder: Path, digest: str, where: str) -> Trained | None:
    """The result in a folder if it is of this digest; UserError if it is another one."""
    if not (folder / "model.yaml").is_file():
        return None
    try:
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    if record.get("digest") != digest:
        raise UserError(
            f"{where}: {folder} was trained with another recipe or on other data, and is not overwritten. "
            f"Give the recipe another name, or remove the folder: rm -r {folder}"
        )
    return Trained(folder.name, folder, record)


def classes(source: TrainingSet, train, validation) -> dict[str, dict[str, int]]:
    """Images per class; small ones are told."""
    total = len(source.class_names)
    parts = zip(
        source.class_names,
        training_set.counts(train.labels, total),
        training_set.counts(validation.labels, total),
        strict=True,
    )
    found = {name: {"train": int(a), "validation": int(b)} for name, a, b in parts}
    small = sorted((n["train"], name) for name, n in found.items() if 0 < n["train"] < source.recipe.small)
    if small:
        named = ", ".join(f"{name} {images}" for images, name in small[:LISTED])
        warn(
            f"{len(small)} of {total} classes have fewer than {source.recipe.small} training images: {named}"
            f"{', ...' if small[LISTED:] else ''}; what is said of them is noise"
        )
    return found


def check_classes(recipe: Training, data: Data, names: tuple[str, ...]) -> None:
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
    trained_on = [f"{recipe.dataset}:{recipe.split}"]
    trained_on += [f"{recipe.dataset}:{recipe.validation}"] if isinstance(recipe.validation, str) else []
    written = yaml.safe_dump({folder.name: entry | {"trained_on": trained_on}}, sort_keys=False)
    for file, text in (
        ("training.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n"),
        ("model.yaml", written),
    ):
        with atomic_file(folder / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
