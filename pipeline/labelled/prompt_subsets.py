"""What any subset of a member's prompts is worth on labelled images; nothing is encoded twice.

Shape suffixes: N images, P prompts, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ..chain import features, probs, text
from ..chain.columns import Columns
from ..chain.task import Task
from ..core.errors import Mismatch
from ..maths import metrics, zeroshot
from ..maths.metrics import Interval
from ..recipes.member import Member
from .choosing import sampled_rows


@dataclass(frozen=True)
class SubsetScorer:
    """Class probabilities of a member with any subset of its prompts; nothing is encoded twice."""

    task: Task
    member: Member
    pooling: str

    @cached_property
    def _features(self):
        seen, _ = features.of_member(self.task, self.member)
        return seen.rows("features", 0, len(seen.ids))[sampled_rows(self.task)]

    @cached_property
    def _text(self) -> text.Text:
        return text.of_prompts(self.task, self.member.model, self.task.prompts)[0]

    @cached_property
    def _columns(self) -> Columns:
        return Columns.of(self.task.prompts)

    @cached_property
    def _prompt_probs(self):
        """Of all prompts; leaving some out changes a row's values by one factor, and so no label."""
        return self._member_probs(self._text.features)

    def _member_probs(self, text_features):
        recipe = self.task.project.preprocess(self.member.preprocess)
        return probs.view_probs(recipe, self._features, text_features, self._text.logit_scale)

    def class_probs(self, keep: np.ndarray) -> np.ndarray:
        """(N, C) with the prompts `keep` (P, bool); a class that would lose all of its prompts keeps them."""
        labels, classes = self._columns.prompt_class, len(self.task.class_names)
        weights = self._columns.prompt_weight * torch.from_numpy(keep)
        left = torch.zeros(classes).index_add_(0, labels, weights)
        weights = torch.where(left[labels] > 0, weights, self._columns.prompt_weight)
        if self.pooling == "embedding":
            means = zeroshot.class_text_features(self._text.features, labels, weights, classes)
            return self._member_probs(means).numpy()
        try:
            return zeroshot.class_probs(self._prompt_probs, labels, weights, classes, self.pooling).numpy()
        except ValueError as error:
            raise Mismatch(str(error)) from None

    def labels(self, keep: np.ndarray) -> np.ndarray:
        """(N,), the class that is most probable with the prompts `keep`."""
        return self.class_probs(keep).argmax(axis=1)


@dataclass(frozen=True)
class Judged:
    """A subset of prompts on labelled images: which rows are right, and how probable the true class is."""

    right: np.ndarray
    certainty: float

    @property
    def rank(self) -> tuple[float, float]:
        """Accuracy; of equally accurate subsets the surer one is better."""
        return float(self.right.mean()), self.certainty


def judge(scorer: SubsetScorer, keep: np.ndarray, truth: np.ndarray) -> Judged:
    """Compare a subset's labels with the truth."""
    probs = scorer.class_probs(keep)
    return Judged(probs.argmax(axis=1) == truth, float(probs[np.arange(len(truth)), truth].mean()))


def without_each(scorer: SubsetScorer, parts: Sequence[np.ndarray], truth: np.ndarray) -> list[Interval]:
    """Accuracy that each part (P, bool) adds to all the others: with it minus without, paired interval."""
    whole = judge(scorer, np.ones_like(parts[0]), truth)
    return [metrics.difference(whole.right, judge(scorer, ~part, truth).right) for part in parts]


def forward(scorer: SubsetScorer, parts: Sequence[np.ndarray], always: np.ndarray, truth: np.ndarray) -> list["Step"]:
    """All parts in greedy order: each time the one with which the chosen ones are right most often.

    Prompts in `always` (P, bool) are in from the start and are no part.
    """
    nothing = np.zeros(len(truth))
    steps: list[Step] = []
    rest, chosen, before = list(range(len(parts))), always, nothing
    while rest:
        tried = {number: judge(scorer, chosen | parts[number], truth) for number in rest}
        best = max(rest, key=lambda number: tried[number].rank)
        right = tried[best].right
        steps.append(Step(best, metrics.difference(right, nothing), metrics.difference(right, before)))
        rest.remove(best)
        chosen, before = chosen | parts[best], right
    return steps


class Step(NamedTuple):
    """One part of a greedy order: the accuracy with it and all before it, and what it gained."""

    part: int
    accuracy: Interval
    gain: Interval


def shortest_best(steps: Sequence[Step]) -> list[int]:
    """The parts up to the first step of the highest accuracy."""
    top = max(step.accuracy.value for step in steps)
    stop = next(number for number, step in enumerate(steps) if step.accuracy.value == top)
    return [step.part for step in steps[: stop + 1]]
