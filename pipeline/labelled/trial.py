"""Ensemble recipes tried in memory: the chain's own functions on members' probabilities that are made once and kept."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..chain import decide, ensemble, infer
from ..chain.task import Task
from ..recipes import Ensemble
from ..recipes.prompts import PromptSet

MOST_BYTES = 4_000_000_000  # of members' probabilities that are kept; the oldest go first


@dataclass(frozen=True, eq=False)
class Rows:
    """Probabilities (N, P) in memory, with the `rows` of an artefact."""

    probs: object
    path: str

    def rows(self, _: str, start: int, stop: int):
        """As Artefact.rows."""
        return self.probs[start:stop]


@dataclass
class Trials:
    """All images of a task under one recipe after another.

    Every member's probabilities (N, P) are kept for each set of columns that a recipe asks for, and the last blend:
    recipes that differ in threshold, pooling, prompt weights and refinement alone share it.
    """

    task: Task
    parts: dict[tuple, Rows] = field(default_factory=dict)
    last: tuple[object, Rows | None] = (None, None)

    def class_probs(self, recipe: Ensemble):
        """Class probabilities (N, C) of a recipe, as `decide.run` gives them for the same recipe in a file."""
        columns = ensemble.blended_columns(self.task, recipe)
        pooled_NC = decide.pool(self.task, self._blended(recipe), columns, ensemble.pooling(recipe))
        return decide.refine(self.task, recipe, pooled_NC, "refine", self._part)

    def _blended(self, recipe: Ensemble) -> Rows:
        """The thresholded blend."""
        from ..maths import zeroshot

        parts = {member: self._part(self.task, recipe, member) for member in ensemble.members(recipe)}
        pooled_first = (recipe.pooling, recipe.prompt_weights) if recipe.blend == "classes" else None
        key = (
            ensemble.members(recipe),
            recipe.space,
            recipe.match,
            recipe.blend,
            pooled_first,
            list(parts.values()),
            [recipe.members[member].temperature for member in parts],
        )
        if self.last[0] != key:
            live = decide.Live(self.task, recipe.model_copy(update={"threshold": 0.0}), parts)
            self.last = key, Rows(live.rows("probs", 0, len(self.task.images.ids)), "the blend")
        blended = self.last[1]
        return Rows(zeroshot.threshold(blended.probs, recipe.threshold), blended.path) if recipe.threshold else blended

    def _part(self, task: Task, recipe: Ensemble, member: str) -> Rows:
        """A member's probabilities, as ensemble.run_part makes them."""
        if task.project.is_head(member):
            return self._kept((member,), lambda: self._of_head(member))
        columns, prompts = ensemble.columns(recipe), ensemble.weighted(task, recipe, member)
        key = member, columns, prompts.prompts if columns == "prompts" else prompts
        return self._kept(key, lambda: self._of_prompts(member, columns, prompts))

    def _kept(self, key: tuple, make: Callable[[], object]) -> Rows:
        if key not in self.parts:
            while sum(rows.probs.nbytes for rows in self.parts.values()) > MOST_BYTES:
                del self.parts[next(iter(self.parts))]
            self.parts[key] = Rows(make(), key[0])
        return self.parts[key]

    def _of_prompts(self, member: str, columns: str, prompts: PromptSet):
        features, _ = infer.run_features(self.task, member)
        text, _ = infer.run_text(self.task, infer.split(member)[0], prompts.prompts)
        return infer.probs_of(self.task, member, columns, prompts, features, text)(0, len(self.task.images.ids))

    def _of_head(self, member: str):
        features, _ = infer.run_features(self.task, member)
        return infer.head_probs(self.task, member)(features.rows("features", 0, len(self.task.images.ids)))
