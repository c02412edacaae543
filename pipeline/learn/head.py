"""A head on cached features, trained by a recipe.

    trained/<name>/head.safetensors   the head

With seen and unseen classes <name> is the best for both, and <name>-unseen the best for unseen ones.
"""

import hashlib

from ..chain.task import Runtime
from ..core.console import progress
from ..core.digests import FORMAT
from ..models import heads
from ..models.heads import Head
from ..models.heads._choice import Choice
from ..recipes.training import Training
from . import measure, seen_unseen
from .methods import check_method
from .trained import (
    FOLDER,
    Trained,
    check_classes,
    check_names,
    classes,
    code_of,
    finish,
    head_entry,
    reused,
    say_chosen,
)
from .training_set import TrainingSet


def train_head(task: Runtime, recipe: Training, name: str, where: str) -> list[Trained]:
    """Train what a recipe says, or reuse it: one result, or with unseen classes two, the best for both first."""
    names = [name, f"{name}-unseen"] if recipe.unseen else [name]
    check_names(task.project, names, where)
    recipe.check(task.project.dataset(recipe.dataset), where)
    check_method(recipe.method, f"{where}: method")
    heads.check_balance(recipe.method, recipe.balance, where)
    source, method = TrainingSet(task, recipe), heads.METHODS[recipe.method[0]]
    made_from = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        **_class_file(task, recipe),
        **source.made_from(method.needs_text),
        "code": code_of(method.__module__),
    }
    known = reused(task.project, names, made_from, where)
    if known:
        return known
    made, record = _fit(source, where, name)
    return [
        _write(task, one, recipe, source, head, {"made_from": made_from, **record, **chosen})
        for one, (head, chosen) in zip(names, made, strict=True)
    ]


def _class_file(task: Runtime, recipe: Training) -> dict:
    """The content of the file that lists unseen classes decides the result as well."""
    path = task.project.root / recipe.unseen.file if recipe.unseen and recipe.unseen.file else None
    return {"unseen_file": hashlib.blake2b(path.read_bytes()).hexdigest()} if path and path.is_file() else {}


def _fit(source: TrainingSet, where: str, name: str) -> tuple[list[tuple[Head, dict]], dict]:
    """([(head, what was chosen)], what both have in common)."""
    recipe, project = source.recipe, source.project
    train, validation = source.parts()
    data = source.data(train, heads.METHODS[recipe.method[0]].needs_text)
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


def _write(task: Runtime, name: str, recipe: Training, source: TrainingSet, head: Head, record: dict) -> Trained:
    folder = task.project.root / FOLDER / name
    heads.save(folder / "head.safetensors", recipe.method[0], head, source.class_names)
    finish(folder, head_entry(name, source.member), recipe, record)
    say_chosen(name, recipe.method[0], f"on {source.member}", record, folder)
    return Trained(name, folder, record)
