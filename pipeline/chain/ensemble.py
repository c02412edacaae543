"""Stage ensemble: weighted blend of the members' probabilities, in cache/<competition>/ensemble/."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ..core.errors import prefixed
from ..maths import consensus, zeroshot
from ..recipes import Ensemble
from ..recipes.member import Member
from ..recipes.prompts import PromptSet
from . import damage, features, probs
from .columns import Columns, Kind
from .prompt_weights import prompts_of, weighted
from .stage import Advance, Stage, Work, declare
from .task import Task
from .temperatures import MATCHES

LOOKED_AT = 4096  # images by which weights are found


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
    _ = task.dtype, task.kept  # a mistake in DEVICE or CACHE is told as that, not as one of the recipe
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
        rowwise=MATCHES.find(recipe.match, "match").uses == "image" and recipe.weights == "given",
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
    if recipe.weights != "given":
        way |= {"weights": recipe.weights, "pooling": recipe.pooling}
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
    def weights(self) -> dict[Member, float]:
        """How much each member counts, summing to 1: as written, or as found if `why_even` knows nothing against it."""
        even = members(self.recipe)
        return even if self.why_even else dict(zip(even, self._found.tolist(), strict=True))

    @cached_property
    def why_even(self) -> str:
        """Why weights that were looked for are not those found; 'as written' where none were."""
        even = list(members(self.recipe).values())
        if self.recipe.weights == "given":
            return "as written"
        if len(even) < 3:
            return "of fewer than three members agreement tells nothing"
        before_R, after_R = self._labels([even, self._found.tolist()])
        return consensus.no_better(before_R, after_R, [self._seen(member) for member in self.parts])

    @cached_property
    def _found(self) -> Tensor:
        """The members' weights (M,) by their labels."""
        alone = torch.eye(len(members(self.recipe))).tolist()
        return consensus.dawid_skene(self._labels(alone), len(self.task.class_names))

    @cached_property
    def _looked_at(self) -> Tensor:
        """Row numbers (R,) of the images by which weights are found: all that there is a picture of, or some drawn."""
        row_R = damage.whole(self.task, preprocess_recipes(self.recipe)).nonzero()[:, 0]
        drawn = torch.randperm(len(row_R), generator=torch.Generator().manual_seed(0))[:LOOKED_AT]
        return row_R[drawn].sort().values

    def _chunks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, which of these rows are looked at) of all images."""
        for start, stop in self.task.chunks():
            row_R = self._looked_at
            yield start, stop, row_R[(row_R >= start) & (row_R < stop)] - start

    def _labels(self, weighings: list[list[float]]) -> Tensor:
        """The labels (W, R) of the images looked at by some weights, before the threshold."""
        how, found = pooling(self.recipe), []
        for start, stop, some in self._chunks():
            rows = [self._of_member(member, self.temperatures[member], start, stop)[some] for member in self.parts]
            blends = (zeroshot.blend(rows, weights, self.recipe.space) for weights in weighings)
            found.append(torch.stack([self.columns.pool(blend, how).argmax(dim=1) for blend in blends]))
        return torch.cat(found, dim=1)

    def _seen(self, member: Member) -> Tensor:
        """A member's features (R, D) of the images looked at."""
        seen, _ = features.of_member(self.task, member.tower)
        parts = (seen.rows("features", start, stop)[some] for start, stop, some in self._chunks())
        return torch.cat([features.one_vector(part) for part in parts])

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
        rows = [self._of_member(member, self.temperatures[member], start, stop) for member in self.weights]
        return zeroshot.blend(rows, list(self.weights.values()), self.recipe.space)

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


def told_of(blend: Blend) -> str:
    """What is to be said of weights that were looked for; '' where none were."""
    if blend.recipe.weights == "given":
        return ""
    return f" (weights: auto: even, as {blend.why_even})" if blend.why_even else " (weights: auto: as found)"


class Blending(Work):
    """The work of the stage."""

    def __init__(self, blend: Blend):
        self.blend = blend
        self.temperatures, self.columns = blend.temperatures, blend.columns.saved()

    def rows(self, start: int, stop: int, advance: Advance) -> dict:
        return {"probs": self.blend.blended(start, stop), **self.columns}

    def told(self, rows: int, seconds: float) -> str:
        hot = {member: "" if t == 1 else f" at temperature {t:.4g}" for member, t in self.temperatures.items()}
        shown = self.blend.weights.items()
        blend = " + ".join(f"{weight:.3g} {member}{hot[member]}" for member, weight in shown) + told_of(self.blend)
        images = len(self.blend.task.images.ids)
        return f"{blend}; {images} images in {seconds:.2f} s"
