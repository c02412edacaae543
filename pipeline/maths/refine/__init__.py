"""Registered steps over class probabilities: `refine:` of an ensemble recipe, in the order they are written.

A step is a short pure function `step(probs_NC, evidence, argument...) -> probs_NC` in a file of its own. It may look
at all images together, so it declares what it `uses`; its annotations are what a recipe's argument is checked against.

Shape suffixes: N images, C classes, D feature dimensions, K neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...core.registry import Registry, import_modules
from ..zeroshot import TINY

# `finds_mix`: the classes in effect are a finding of the step; others impose a class mix, or have been seen to spread
# images over classes that are absent. `most` images: a graph of all takes hours for more, and what it needs of memory.
# `check` is given the classes' names and the step's arguments before anything is computed
STEPS = Registry("step", given=2, uses=None, finds_mix=False, most=None, check=None)
GRAPH = 200_000
step = STEPS.register


@dataclass(frozen=True)
class Evidence:
    """What a step may look at beside the probabilities.

    `image_features_ND` and `text_features_CD` (the classes' mean prompts) are those of all members with a text tower,
    side by side: member m, L2-normalised, times the root of its weight, so that products are the weighted mean of the
    members' cosines; `widths` says how many dimensions are whose (empty: one member). `member_probs` are all members'
    class probabilities (N, C). `witness_ND` are the features of a tower that takes part in nothing else.
    """

    image_features_ND: Tensor
    text_features_CD: Tensor
    member_probs: Sequence[Tensor] = ()
    class_names: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    witness_ND: Tensor | None = None

    @property
    def spaces(self) -> list[Tensor]:
        """The spaces that images lie in, (N, D) each: the members' side by side, and the witness's."""
        return [self.image_features_ND, *([] if self.witness_ND is None else [self.witness_ND])]

    @property
    def judges(self) -> list[Tensor]:
        """The spaces whose neighbours are asked about changes: the witness's, or else each member's."""
        if self.witness_ND is not None:
            return [self.witness_ND]
        return list(self.image_features_ND.split(self.widths or self.image_features_ND.shape[1], dim=1))

    def some(self, rows_N: Tensor) -> "Evidence":
        """The same of some images."""
        return replace(
            self,
            image_features_ND=self.image_features_ND[rows_N],
            member_probs=tuple(probs_NC[rows_N] for probs_NC in self.member_probs),
            witness_ND=None if self.witness_ND is None else self.witness_ND[rows_N],
        )


class NotConverged(Exception):
    """A step's iteration has not settled: its result is not one of the method. The message says what and when."""


def unit_rows(probs_NC: Tensor) -> Tensor:
    """Rows that sum to 1, float32, nowhere 0; a row of zeros (all under the threshold) becomes uniform."""
    positive_NC = probs_NC.float().clamp_min(TINY)
    return positive_NC / positive_NC.sum(dim=1, keepdim=True)


def histogram(probs_NC: Tensor) -> Tensor:
    """How many images have each class as their label, (C,)."""
    return torch.bincount(probs_NC.argmax(dim=1), minlength=probs_NC.shape[1])


def classes_in_effect(probs_NC: Tensor) -> float:
    """exp of the entropy of the labels' shares, as a share of all classes: 1 where all are equally frequent."""
    share_C = histogram(probs_NC).double() / len(probs_NC)
    return float(torch.special.entr(share_C).sum().exp()) / probs_NC.shape[1]


import_modules(__name__)  # the steps register themselves
