"""Verb train: training/<name>.yaml -> trained/<name>/, a member like any other. Nothing is overwritten.

    trained/<name>/head.safetensors   the head
    trained/<name>/training.json      recipe, digests, classes with their images, settings, history
    trained/<name>/model.yaml         its entry as a model; written last, so a folder without it is not finished

With seen and unseen classes <name> is the best for both, and <name>-unseen the best for unseen ones.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..chain.task import Runtime
from ..core.console import progress, say, warn
from ..core.digests import FORMAT, digest_of
from ..core.errors import UserError
from ..core.files import atomic_file
from ..models import heads
from ..models.heads import Data, Head
from ..models.heads._choice import Choice
from ..recipes import NAME, Project
from . import features, measure, seen_unseen
from .features import Source
from .recipe import Training, check_method

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


def run(task: Runtime, recipe: Training, name: str, where: str) -> list[Trained]:
    """Train what a recipe says, or reuse it: one result, or with unseen classes two, the best for both first."""
    if not NAME.fullmatch(name):
        raise UserError(f"{where}: {name!r} is no name: letters, digits, '.', '_' and '-' only")
    recipe.check(task.project.dataset(recipe.dataset), where)
    check_method(recipe.method, f"{where}: method")
    heads.check_balance(recipe.method, recipe.balance, where)
    source = Source(task, recipe)
    names = [name, f"{name}-unseen"] if recipe.unseen else [name]
    check_names(task.project, names, where)
    made_from = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        **_class_file(task, recipe),
        **source.made_from(heads.METHODS[recipe.method[0]].needs_text),
    }
    known = [finished(task.project.root / FOLDER / one, digest_of(made_from), where) for one in names]
    if all(known):
        say("train", name, f"{known[0].folder} reused: same recipe, same data")
        return known
    made, record = _fit(source, where, name)
    record = {"digest": digest_of(made_from), "made_from": made_from, **record}
    return [
        _write(task, one, recipe, source, head, record | chosen)
        for one, (head, chosen) in zip(names, made, strict=True)
    ]


def _class_file(task: Runtime, recipe: Training) -> dict:
    """The content of the file that lists unseen classes decides the result as well."""
    path = task.project.root / recipe.unseen.file if recipe.unseen and recipe.unseen.file else None
    return {"unseen_file": hashlib.blake2b(path.read_bytes()).hexdigest()} if path and path.is_file() else {}


def check_names(project: Project, names: list[str], where: str) -> None:
    """UserError for a name that another model has: two of one name could not be told apart."""
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


def _fit(source: Source, where: str, name: str) -> tuple[list[tuple[Head, dict]], dict]:
    """([(head, what was chosen)], what both have in common)."""
    recipe, project = source.recipe, source.project
    train, validation = source.parts()
    captions = source.captions if heads.METHODS[recipe.method[0]].needs_text else None
    data = Data(train, len(source.class_names), captions, recipe.balance, recipe.seed)
    common = {"base": str(source.member), "classes": classes(source, train, validation)}
    place = f"{where}: method"
    with progress(f"train {name}", "state") as bar:

        def tell(setting: dict, measures: dict) -> None:
            bar.set_postfix({key: f"{value:.3g}" for key, value in (setting | measures).items()}, refresh=False)
            bar.update()

        if recipe.unseen:
            parts = seen_unseen.split(recipe.unseen, source.task.classes, project.root, where)
            found, choice = seen_unseen.fit(recipe.method, data, validation, parts, place, tell)
            kinds = {"unseen": parts.unseen.tolist(), "held_out": parts.held.tolist()}
            made = [(head, {"target": target, **_chosen(choice, target)}) for target, head in found.items()]
            zero = None if recipe.captions else seen_unseen.zero_shot_bias(data, validation, parts)
            return made, common | kinds | {"zero_shot_bias": zero, "history": choice.history}
        choice = Choice(measure.on(validation), (recipe.metric,), tell)
        check_classes(recipe, data, source.class_names)
        heads.fit(recipe.method, data, choice, place)
        head = choice.head()
        if heads.METHODS[recipe.method[0]].refit and not recipe.shots:
            head = heads.refit(recipe.method, data, validation, [choice.setting()], place, tell)[0]
    return [(head, _chosen(choice, recipe.metric))], common | {"history": choice.history}


def _chosen(choice: Choice, target: str) -> dict:
    return {"setting": choice.setting(target), "validation": choice.measures(target)}


def classes(source: Source, train, validation) -> dict[str, dict[str, int]]:
    """Images per class; small ones are told."""
    total = len(source.class_names)
    parts = zip(
        source.class_names, features.counts(train.labels, total), features.counts(validation.labels, total), strict=True
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


def _write(task: Runtime, name: str, recipe: Training, source: Source, head: Head, record: dict) -> Trained:
    folder = task.project.root / FOLDER / name
    heads.save(folder / "head.safetensors", recipe.method[0], head, source.class_names)
    finish(folder, head_entry(name, source.member), recipe, record)
    measures = ", ".join(f"{key} {value:.3f}" for key, value in record["validation"].items() if key != "loss")
    setting = ", ".join(f"{key} {value:.4g}" for key, value in record["setting"].items())
    say("train", name, f"{recipe.method[0]} ({setting}) on {source.member}; validation: {measures}; {folder}")
    return Trained(name, folder, record)


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
