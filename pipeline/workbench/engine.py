"""A recipe of the draft, decided in memory by the chain's own functions: what `make submit` would write.

What an edit leaves as it is stays in memory: a member's prompt probabilities while its prompts are the same, its own
labels while its pooling is.
"""

import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..chain import classes, ensemble, features, probs, rules
from ..chain.classes import Decision
from ..chain.columns import Columns
from ..chain.ensemble import Blend, Rows
from ..chain.prompt_weights import prompts_of, weighted
from ..chain.stage import Stage, make
from ..chain.task import Task
from ..core import artefacts
from ..core.errors import prefixed
from ..recipes import Ensemble
from ..recipes.member import Member
from ..report import behind, result
from ..report.prompt_use import PromptUse, prompt_uses

IN_MEMORY = 2**30  # bytes of probabilities that are kept for edits that are taken back
BETWEEN = 512  # images between two pauses: some milliseconds
MAPPED = 2**28  # bytes of one artefact from which its files are mapped instead of read


@dataclass(frozen=True, eq=False)
class Values:
    """Values of all images in memory or in mapped files: parts of consecutive rows."""

    parts: tuple[tuple[int, int, Tensor], ...]
    ids: tuple[str, ...]
    path: str = "memory"

    @classmethod
    def of(cls, stage: Stage, key: str, lay: Callable[[Tensor], Tensor] = lambda rows: rows) -> "Values":
        """Those of a computed stage, laid out by `lay`. Large ones are mapped: memory need not hold them."""
        found = []
        for start, stop, file in stage.shards():
            mapped = file.stat().st_size * len(stage.ids) / max(1, stop - start) > MAPPED
            shard = artefacts.load(file, stage.digest, mapped) or stage.read(start, stop, file)
            found.append((start, stop, shard[key] if mapped else lay(shard[key])))
        return cls(tuple(found), stage.ids, str(stage.path))

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """As Artefact.rows."""
        found, at = [], bisect.bisect_right(self._starts, start) - 1
        while at < len(self.parts) and self._starts[at] < stop:
            first, _, values = self.parts[at]
            found.append(values[max(0, start - first) : stop - first])
            at += 1
        return found[0] if len(found) == 1 else torch.cat(found)

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _, _ in self.parts]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(values.nbytes for _, _, values in self.parts)


def by_column(rows_NP: Tensor) -> Tensor:
    """The same values, each column's together in memory, as pooling goes through them: three times as fast."""
    return rows_NP.T.contiguous().T


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What a recipe of the draft says of all images."""

    task: Task
    recipe: Ensemble
    decision: Decision
    blend: Blend
    parts: Mapping[Member, Rows]
    labels: np.ndarray  # (N,)
    shares: np.ndarray  # (N, C)
    members: tuple[result.Member, ...]

    @property
    def where(self) -> tuple[Columns, str]:
        return self.blend.columns, ensemble.pooling(self.recipe)


@dataclass
class Engine:
    """Evaluates recipes of one task; `first` is the task as it was when the page was opened."""

    first: Task
    _features: dict[str, Values] = field(default_factory=dict)
    _probs: OrderedDict[tuple, Values] = field(default_factory=OrderedDict)
    _own: OrderedDict[tuple, np.ndarray] = field(default_factory=OrderedDict)

    def prepare(self, task: Task, recipe: Ensemble) -> None:
        """Compute what is not cached of a recipe as `make infer` does, and keep the features at hand."""
        for member in ensemble.members(recipe):
            make(ensemble.part(task, recipe, member))
        for tower in ensemble.towers(recipe):
            self.features(task, tower)

    def evaluate(self, task: Task, name: str) -> Evaluated:
        """Decide by recipe `name` of a task; UserError as `make submit` would tell it."""
        rules.check(task, name)
        recipe, where = task.project.ensemble(name), f"ensembles/{name}.yaml"
        classes.steps(task, recipe, where, len(task.images.ids))
        with prefixed(where):
            ensemble.check(task, recipe)
        parts = {member: self.part(task, recipe, member) for member in ensemble.members(recipe)}
        blend = Blend(task, recipe, parts)
        decision = classes.conclude(task, recipe, where, blend, blend.columns, parts.__getitem__)
        return Evaluated(
            task,
            recipe,
            decision,
            blend,
            parts,
            decision.refined.argmax(dim=1).numpy(),
            behind.shares_of(decision.refined.numpy()),
            tuple(self._members(task, recipe, parts, blend.weights)),
        )

    def part(self, task: Task, recipe: Ensemble, member: Member) -> Values:
        """The probabilities of a member, as the recipe needs them: from memory, from the cache, or from features."""
        key = _key(task, recipe, member)
        if key not in self._probs:
            stage = ensemble.part(task, recipe, member)
            done = not stage.missing(stage.shard_rows)
            if not done:
                self._make_room(4 * len(stage.ids) * max(1, len(key[-1])))
            self._probs[key] = Values.of(stage, "probs", by_column) if done else self._computed(task, recipe, member)
        self._probs.move_to_end(key)
        self._make_room(0)
        return self._probs[key]

    def _make_room(self, more: int) -> None:
        while len(self._probs) > 1 and more + sum(one.size for one in self._probs.values()) > IN_MEMORY:
            if len(self._probs) <= 2 * len(self._features) and not more:
                return  # what the present recipe and the one before it need
            self._probs.popitem(last=False)

    def _computed(self, task: Task, recipe: Ensemble, member: Member) -> Values:
        seen = self.features(task, member)
        prompts = None if member.is_head else weighted(task, recipe, member)
        work = probs.Probabilities(task, member, ensemble.kind(recipe), prompts, seen, 0)
        parts = []
        for start, stop in task.chunks():
            parts.append((start, stop, by_column(work.rows(start, stop, lambda rows: None)["probs"])))
        return Values(tuple(parts), seen.ids)

    def features(self, task: Task, member: Member) -> Values:
        """The image features of a member; what is not cached is computed, as by `make infer`."""
        if member.tower not in self._features:
            stage = features.stage(task, member)
            make(stage)
            self._features[member.tower] = Values.of(stage, "features")
        return self._features[member.tower]

    def _members(
        self, task: Task, recipe: Ensemble, parts: Mapping[Member, Values], weights: Mapping[Member, float]
    ) -> Iterator[result.Member]:
        for member, part in parts.items():
            columns, how = ensemble.member_columns(task, recipe, member), ensemble.pooling(recipe)
            key = (_key(task, recipe, member), how, tuple(columns.prompt_weight.tolist()))
            if key not in self._own:
                self._own[key] = classes.pool(task, part, columns, how).argmax(dim=1).numpy()
            self._own.move_to_end(key)
            while len(self._own) > 4 * len(parts) + 4:
                self._own.popitem(last=False)
            yield result.Member(member, weights[member], self._own[key])


def _key(task: Task, recipe: Ensemble, member: Member) -> tuple:
    """What decides a member's probabilities among edits: its prompts, and where their texts are averaged the weights.

    That is less than the digest of the stage, which other weights of the same prompts change as well.
    """
    kind = ensemble.kind(recipe)
    if member.is_head:
        return member, kind, task.class_names
    prompts = prompts_of(task, recipe, member)
    if kind == "prompts":
        return member, kind, prompts.prompts
    return member, kind, prompts.digest, prompts.prompt_class, prompts.prompts


@dataclass(frozen=True, eq=False)
class Pausing:
    """Rows that call `pause` before they are read: it may raise, to put off what reads them."""

    of: Rows
    pause: Callable[[], None]

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """As Artefact.rows."""
        self.pause()
        return self.of.rows(key, start, stop)


def prompt_effects(
    seen: Evaluated, truth: np.ndarray | None, pause: Callable[[], None]
) -> tuple[list[PromptUse], np.ndarray] | None:
    """What each prompt does, and which labels hang on one (N,), before refinement; None where prompts have no columns.

    `pause` is called now and then, and may raise to end it.
    """
    columns, how = seen.where
    if seen.recipe.blend != "prompts" or seen.recipe.pooling == "embedding":
        return None
    rows = Pausing(seen.blend, pause)
    # as they lie in files: sums along a row are those of the report to the last bit
    found = lambda start, stop: rows.rows("probs", start, stop).contiguous()  # noqa: E731
    return prompt_uses(seen.task, found, columns, how, truth, BETWEEN)


def member_effects(seen: Evaluated, pause: Callable[[], None]) -> dict[str, int]:
    """How many labels, before refinement, change when a member is left out; `pause` as above."""
    columns, _ = seen.where
    before = seen.decision.pooled.argmax(dim=1)
    parts = {member: Pausing(part, pause) for member, part in seen.parts.items()}
    return dict(behind.flips_without_each(seen.task, seen.recipe, parts, columns, before))
