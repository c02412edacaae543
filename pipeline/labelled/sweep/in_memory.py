"""Ensemble recipes tried in memory: the chain's own functions on members' probabilities that are made once and kept."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from ...chain import classes, ensemble, features, probs, text
from ...chain.columns import Kind
from ...chain.ensemble import Blend
from ...chain.prompt_weights import weighted
from ...chain.task import Task
from ...maths import zeroshot
from ...recipes import Ensemble
from ...recipes.member import Member
from ...recipes.prompts import PromptSet

MOST_BYTES = 4_000_000_000  # of members' probabilities that are kept; the oldest go first


@dataclass(frozen=True, eq=False)
class RowsInMemory:
    """Probabilities (N, P), with the `rows` of an artefact."""

    probs: Tensor
    path: str

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """As Artefact.rows."""
        return self.probs[start:stop]


@dataclass
class EnsemblesInMemory:
    """All images of a task under one recipe after another.

    Every member's probabilities (N, P) are kept for each set of columns that a recipe asks for, and the last blend:
    recipes that differ in threshold, pooling, prompt weights and refinement alone share it.
    """

    task: Task
    parts: dict[tuple, RowsInMemory] = field(default_factory=dict)
    last: tuple[object, RowsInMemory | None] = (None, None)

    def class_probs(self, recipe: Ensemble) -> Tensor:
        """Class probabilities (N, C) of a recipe, as `classes.decide` gives them for the same recipe in a file."""
        columns, how = ensemble.blended_columns(self.task, recipe), ensemble.pooling(recipe)
        pooled_NC = classes.pool(self.task, self._blended(recipe), columns, how)
        return classes.refine(self.task, recipe, pooled_NC, "refine", lambda member: self._part(recipe, member))

    def _blended(self, recipe: Ensemble) -> RowsInMemory:
        """The thresholded blend."""
        parts = {member: self._part(recipe, member) for member in ensemble.members(recipe)}
        by_classes = recipe.blend == "classes" or recipe.weights == "auto"
        pooled_first = (recipe.pooling, recipe.prompt_weights) if by_classes else None
        temperatures = [recipe.members[member].temperature for member in parts]
        way = (recipe.space, recipe.match, recipe.blend, recipe.weights, pooled_first, temperatures)
        key = (ensemble.members(recipe), way, list(parts.values()))
        if self.last[0] != key:
            blend = Blend(self.task, recipe, parts)
            self.last = key, RowsInMemory(blend.blended(0, len(self.task.images.ids)), blend.path)
        last = self.last[1]
        return RowsInMemory(zeroshot.threshold(last.probs, recipe.threshold), last.path) if recipe.threshold else last

    def _part(self, recipe: Ensemble, member: Member) -> RowsInMemory:
        """A member's probabilities, as the stage makes them."""
        if member.is_head:
            return self._kept((member,), lambda: probs.head_probs(self.task, member), member)
        kind, prompts = ensemble.kind(recipe), weighted(self.task, recipe, member)
        key = member, kind, prompts.prompts if kind == "prompts" else prompts
        return self._kept(key, lambda: self._of_prompts(member, kind, prompts), member)

    def _kept(self, key: tuple, of: Callable[[], probs.OfFeatures], member: Member) -> RowsInMemory:
        if key not in self.parts:
            while sum(rows.probs.nbytes for rows in self.parts.values()) > MOST_BYTES:
                del self.parts[next(iter(self.parts))]
            seen, _ = features.of_member(self.task, member)
            self.parts[key] = RowsInMemory(probs.in_chunks(of(), seen, 0, len(seen.ids)), member)
        return self.parts[key]

    def _of_prompts(self, member: Member, kind: Kind, prompts: PromptSet) -> probs.OfFeatures:
        known, _ = text.of_prompts(self.task, member.model, prompts)
        return probs.prompt_probs(self.task, member, kind, prompts, known)
