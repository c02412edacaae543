"""Stage ensemble: weighted blend of the members' probabilities, in cache/<competition>/ensemble/."""

import functools
import time
from collections.abc import Callable, Iterator

from ..core.artefacts import Artefact
from ..core.console import say
from ..core.digests import FORMAT
from ..recipes import Ensemble
from ..recipes.prompts import PromptSet
from . import infer
from .match import MATCHES
from .prompt_weights import prompts_of, weighted
from .task import Task


def members(recipe: Ensemble) -> dict[str, float]:
    """The members that count, with weights that sum to 1."""
    total = sum(member.weight for member in recipe.members.values())
    return {name: member.weight / total for name, member in recipe.members.items() if member.weight > 0}


def preprocess_recipes(recipe: Ensemble) -> list[str]:
    """The preprocess recipes of the members that count, each once."""
    return list(dict.fromkeys(infer.split(member)[1] for member in members(recipe)))


def columns(recipe: Ensemble) -> str:
    """Which columns the members' probabilities have: one per prompt, or one per class (mean text embedding)."""
    return "class_mean" if recipe.pooling == "embedding" else "prompts"


def blended_columns(task: Task, recipe: Ensemble, find: Callable = weighted) -> dict:
    """What the columns of the blend are, as infer.columns_of says it."""
    if recipe.blend == "classes" or task.project.is_head(next(iter(members(recipe)))):
        return infer.columns_of(task, "classes")
    return infer.columns_of(task, columns(recipe), find(task, recipe))


def member_columns(task: Task, recipe: Ensemble, member: str, find: Callable = weighted) -> dict:
    """What the columns of a member's probabilities are; a trained head's are classes."""
    if task.project.is_head(member):
        return infer.columns_of(task, "classes")
    return infer.columns_of(task, columns(recipe), find(task, recipe, member))


def _prompts_of(task: Task, recipe: Ensemble, member: str, find: Callable = prompts_of) -> PromptSet | None:
    return None if task.project.is_head(member) else find(task, recipe, member)


def check(task: Task, recipe: Ensemble) -> None:
    """UserError for prompts that a member does not have, or weights that the pooling cannot use."""
    for member in members(recipe):
        _prompts_of(task, recipe, member)


def pooling(recipe: Ensemble) -> str:
    """How the members' columns become classes; those that are classes already are pooled one by one."""
    return "mean" if recipe.pooling == "embedding" else recipe.pooling


def part(task: Task, recipe: Ensemble, member: str) -> Artefact:
    """The probabilities of a member, as the recipe needs them."""
    return infer.artefact(task, member, columns(recipe), _prompts_of(task, recipe, member))


def run_part(task: Task, recipe: Ensemble, member: str) -> Artefact:
    """The same, computed."""
    return infer.run(task, member, columns(recipe), _prompts_of(task, recipe, member, weighted))


def artefact(task: Task, name: str) -> Artefact:
    """What the stage makes: `probs` float32 (N, P); with 'blend: classes' (N, C)."""
    recipe = task.project.ensemble(name)
    made_from = {
        "stage": "ensemble",
        "format": FORMAT,
        "members": [[part(task, recipe, member).digest, weight] for member, weight in members(recipe).items()],
        **_way(recipe),
    }
    return Artefact(task.cache / "ensemble" / name, made_from, task.images.ids)


def _way(recipe: Ensemble) -> dict:
    """What else decides the blend, as far as it is not the usual, so that older files are still found."""
    way = {"space": "log"} if recipe.space == "log" else {}
    if recipe.blend == "classes":
        way |= {"blend": "classes", "pooling": recipe.pooling}
    if recipe.match == "temperature":
        way["temperatures"] = [recipe.members[member].temperature for member in members(recipe)]
    elif recipe.match != "none":
        way["match"] = recipe.match
    return way


def run(task: Task, name: str) -> Artefact:
    """Blend the members of a recipe, inferring those that are not cached."""
    recipe, result = task.project.ensemble(name), artefact(task, name)
    gaps = result.missing(task.shard_rows)
    if not gaps:
        say("ensemble", name, f"{len(result.ids)} images reused")
        return result
    weights = members(recipe)
    parts = {member: run_part(task, recipe, member) for member in weights}
    began = time.perf_counter()
    matched = temperatures(task, recipe, parts)
    for start, stop in gaps:
        probs = blended(task, recipe, parts, matched, start, stop)
        result.save(start, stop, probs=probs, **blended_columns(task, recipe))
    hot = {member: "" if t == 1 else f" at temperature {t:.4g}" for member, t in matched.items()}
    blend = " + ".join(f"{weight:.3g} {member}{hot[member]}" for member, weight in weights.items())
    say("ensemble", name, f"{blend}; {len(result.ids)} images in {time.perf_counter() - began:.2f} s")
    return result


def blended(task: Task, recipe: Ensemble, parts: dict, temperatures: dict[str, float], start: int, stop: int):
    """The blend (n, P), or (n, C), of images start..stop; `parts` have the `rows` of the members' probabilities."""
    from ..maths import zeroshot

    weights = members(recipe)
    rows = [_rows(task, recipe, member, parts[member], temperatures[member], start, stop) for member in weights]
    return zeroshot.blend(rows, list(weights.values()), recipe.space)


def temperatures(task: Task, recipe: Ensemble, parts: dict[str, Artefact]) -> dict[str, float]:
    """The temperature at which each member is blended; `parts` are their probabilities, all computed."""
    confidence = functools.partial(_confidence, task, recipe, parts)
    return MATCHES[recipe.match](recipe, members(recipe), confidence)


def _rows(task: Task, recipe: Ensemble, member: str, probs: Artefact, temperature: float, start: int, stop: int):
    """What a member brings to the blend for images start..stop: its columns, or its classes (rows sum to 1)."""
    from ..maths import zeroshot

    rows_NP = zeroshot.temper(probs.rows("probs", start, stop), temperature)
    if recipe.blend == "prompts":
        return rows_NP
    what = member_columns(task, recipe, member)
    classes = len(task.class_names)
    return zeroshot.class_probs(rows_NP, what["prompt_class"], what["prompt_weight"], classes, pooling(recipe))


def _confidence(task: Task, recipe: Ensemble, parts: dict[str, Artefact], member: str, temperature: float) -> float:
    total = 0.0
    for start, stop in chunks(task):
        rows = _rows(task, recipe, member, parts[member], temperature, start, stop)
        total += rows.amax(dim=1).double().sum().item()
    return total / len(task.images.ids)


def chunks(task: Task) -> Iterator[tuple[int, int]]:
    """Row ranges that fit into memory whatever the number of images is."""
    total = len(task.images.ids)
    return ((start, min(start + task.shard_rows, total)) for start in range(0, total, task.shard_rows))
