"""Stage ensemble: weighted blend of the members' probabilities, in cache/<competition>/ensemble/."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from ..core.errors import prefixed
from ..maths import zeroshot
from ..recipes import Ensemble
from ..recipes.member import Member
from ..recipes.prompts import PromptSet
from . import damage, probs
from .columns import Columns, Kind
from .prompt_weights import prompts_of, weighted
from .stage import Advance, Stage, Work, declare
from .task import Task
from .temperatures import MATCHES


class Rows(Protocol):
    """Probabilities of all images, in files or in memory."""

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """As Artefact.rows."""


def members(recipe: Ensemble) -> dict[Member, float]:
    """The members that count, with weights that sum to 1."""
    total = sum(member.weight for member in recipe.members.values())
    return {name: member.weight / total for name, member in recipe.members.items() if member.weight > 0}


def towers(recipe: Ensemble) -> list[Member]:
    """Whose image features a recipe needs, each once: those of the members that count, and of the witness."""
    witness = [recipe.witness] if recipe.witness else []
    return list(dict.fromkeys(member.tower for member in [*members(recipe), *witness]))


def preprocess_recipes(recipe: Ensemble) -> list[str]:
    """The preprocess recipes of the towers that a recipe needs, each once."""
    return list(dict.fromkeys(tower.preprocess for tower in towers(recipe)))


def kind(recipe: Ensemble) -> Kind:
    """Which columns the members' probabilities have: one per prompt, or one per class (mean text embedding)."""
    return "class_mean" if recipe.pooling == "embedding" else "prompts"


def pooling(recipe: Ensemble) -> str:
    """How the members' columns become classes; those that are classes already are pooled one by one."""
    return "mean" if recipe.pooling == "embedding" else recipe.pooling


def member_columns(task: Task, recipe: Ensemble, member: Member) -> Columns:
    """What the columns of a member's probabilities are; a trained head's are classes."""
    if member.is_head:
        return Columns.classes(task.class_names)
    return Columns.of(weighted(task, recipe, member), kind(recipe))


def blended_columns(task: Task, recipe: Ensemble) -> Columns:
    """What the columns of the blend are."""
    if recipe.blend == "classes" or next(iter(members(recipe))).is_head:
        return Columns.classes(task.class_names)
    return Columns.of(weighted(task, recipe), kind(recipe))


def check(task: Task, recipe: Ensemble) -> None:
    """UserError for prompts that a member does not have, or weights that the pooling cannot use."""
    for member in members(recipe):
        _prompts(task, recipe, member)


def _prompts(task: Task, recipe: Ensemble, member: Member) -> PromptSet | None:
    return None if member.is_head else prompts_of(task, recipe, member)


def part(task: Task, recipe: Ensemble, member: Member) -> Stage:
    """The probabilities of a member, as the recipe needs them."""
    find = functools.partial(weighted, task, recipe, member)
    return probs.stage(task, member, kind(recipe), _prompts(task, recipe, member), find)


def stage(task: Task, name: str) -> Stage:
    """`probs` float32 (N, P) of the recipe's blend; with 'blend: classes' (N, C)."""
    recipe = task.project.ensemble(name)
    weights = members(recipe)
    with prefixed(str(task.project.ensemble_path(name))):
        parts = {member: part(task, recipe, member) for member in weights}
    digests = [[parts[member].digest, weight] for member, weight in weights.items()]
    return declare(
        task,
        "ensemble",
        name,
        {"members": digests, **_way(recipe)},
        verb="ensemble",
        begin=lambda _: Blending(Blend(task, recipe, parts)),
        inputs=tuple(parts.values()),
        reused=f"{len(task.images.ids)} images reused",
        row_bytes=4 * len(task.class_names) if recipe.blend == "classes" else next(iter(parts.values())).row_bytes,
    )


def _way(recipe: Ensemble) -> dict:
    """What else decides the blend, as far as it is not the usual, so that older files are still found."""
    way = {"space": recipe.space} if recipe.space != "probability" else {}
    if recipe.blend == "classes":
        way |= {"blend": "classes", "pooling": recipe.pooling}
    if recipe.match == "temperature":
        way["temperatures"] = [recipe.members[member].temperature for member in members(recipe)]
    elif recipe.match != "none":
        way["match"] = recipe.match
    return way


@dataclass(frozen=True, eq=False)
class Blend:
    """The thresholded blend of a recipe, made row by row from `parts`: the probabilities of each member, computed."""

    task: Task
    recipe: Ensemble
    parts: Mapping[Member, Rows]
    path: str = "the blend"

    @cached_property
    def columns(self) -> Columns:
        return blended_columns(self.task, self.recipe)

    @cached_property
    def temperatures(self) -> dict[Member, float]:
        """The temperature at which each member is blended."""
        return MATCHES.find(self.recipe.match, "match")(self.recipe, members(self.recipe), self._confidence)

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """As Artefact.rows."""
        blended_NP = self.blended(start, stop)
        return zeroshot.threshold(blended_NP, self.recipe.threshold) if self.recipe.threshold else blended_NP

    def blended(self, start: int, stop: int) -> Tensor:
        """The blend (n, P), or (n, C), of images start..stop, before the threshold."""
        weights = members(self.recipe)
        rows = [self._of_member(member, self.temperatures[member], start, stop) for member in weights]
        return zeroshot.blend(rows, list(weights.values()), self.recipe.space)

    def _of_member(self, member: Member, temperature: float, start: int, stop: int) -> Tensor:
        """What a member brings to the blend: its columns, or its classes (rows sum to 1)."""
        rows_NP = zeroshot.temper(self.parts[member].rows("probs", start, stop), temperature)
        if self.recipe.blend == "prompts":
            return rows_NP
        return self._columns[member].class_probs(rows_NP, pooling(self.recipe))

    @cached_property
    def _columns(self) -> dict[Member, Columns]:
        return {member: member_columns(self.task, self.recipe, member) for member in self.parts}

    def _confidence(self, member: Member, temperature: float) -> float:
        """Mean of the largest probability of each image that there is a picture of."""
        whole_N, total = damage.whole(self.task, preprocess_recipes(self.recipe)), 0.0
        for start, stop in self.task.chunks():
            best_N = self._of_member(member, temperature, start, stop).amax(dim=1)
            total += best_N[whole_N[start:stop]].double().sum().item()
        return total / max(1, int(whole_N.sum()))


class Blending(Work):
    """The work of the stage."""

    def __init__(self, blend: Blend):
        self.began, self.blend = time.perf_counter(), blend
        self.temperatures, self.columns = blend.temperatures, blend.columns.saved()

    def rows(self, start: int, stop: int, advance: Advance) -> dict:
        return {"probs": self.blend.blended(start, stop), **self.columns}

    def told(self, rows: int, seconds: float) -> str:
        hot = {member: "" if t == 1 else f" at temperature {t:.4g}" for member, t in self.temperatures.items()}
        weights = members(self.blend.recipe)
        blend = " + ".join(f"{weight:.3g} {member}{hot[member]}" for member, weight in weights.items())
        images = len(self.blend.task.images.ids)
        return f"{blend}; {images} images in {time.perf_counter() - self.began:.2f} s"
