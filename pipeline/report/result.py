"""What a report is about: one object, whatever it was collected from, and the measures taken on it.

Shape suffixes: N images, C classes, M members, B bins; S images of a subsample, D dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from ..chain.scores import board_sees
from ..maths import metrics
from ..maths.metrics import ByClass, Calibration
from .prompt_use import PromptUse
from .spaces import Space


@dataclass(frozen=True)
class Member:
    """One model: its weight in the ensemble, if it is in one, and its own labels (N,).

    `flips` is how many of the ensemble's labels change without it (None: it is alone, or not in an ensemble).
    """

    name: str
    weight: float | None
    labels: np.ndarray
    flips: int | None = None


@dataclass(frozen=True)
class Change:
    """From an earlier submission's labels (N,) to others of the same images; a board of `board` images scores both.

    None: its score is not the share of right labels.
    """

    number: int
    recipe: str
    public: str
    before: np.ndarray
    after: np.ndarray
    board: int | None

    @property
    def flipped(self) -> int:
        return int((self.before != self.after).sum())

    @property
    def images(self) -> int:
        return len(self.after)

    def pairs(self) -> list[tuple[int, int, np.ndarray]]:
        """(class before, class after, rows of the images), most images first."""
        rows = np.flatnonzero(self.before != self.after)
        kinds = np.stack([self.before[rows], self.after[rows]])
        found, which = np.unique(kinds, axis=1, return_inverse=True)
        made = [(int(a), int(b), rows[which.ravel() == k]) for k, (a, b) in enumerate(found.T)]
        return sorted(made, key=lambda pair: -len(pair[2]))

    @property
    def noise(self) -> float | None:
        """Standard error of the score difference if neither is better; None where the score is not of labels."""
        return self.board and metrics.difference_noise(self.flipped, self.images, self.board)

    @property
    def against(self) -> str:
        return f"{self.number:03d} {self.recipe}{f', public {self.public}' if self.public else ''}"

    @property
    def seen(self) -> str:
        """What the board can see of it, in words."""
        return board_sees(self.flipped, self.images, self.board)


@dataclass(frozen=True)
class Result:
    """Labels of N images with as much as is known about how they came about."""

    title: str
    subtitle: str
    stem: str  # of the report's file
    ids: Sequence[str]
    open_image: Callable[[int, int], Image.Image]  # (row, pixels needed)
    class_names: Sequence[str]
    labels: np.ndarray
    truth: np.ndarray | None = None
    shares: np.ndarray | None = None  # (N, C), rows sum to 1
    members: Sequence[Member] = ()
    spaces: Sequence[Space] = ()
    prompts: Sequence[PromptUse] = ()
    fragile: np.ndarray | None = None  # (N,), whether the label changes when some one prompt is left out
    prior: np.ndarray | None = None  # (C,), shares that the competition states
    changes: Sequence[Change] = ()
    made: dict = field(default_factory=dict)
    board: dict[str, str] = field(default_factory=dict)  # the line of log.csv: public, private, flipped_previous
    notes: Sequence[str] = ()
    subject: str = "ensemble"  # what gave the labels

    @cached_property
    def right(self) -> np.ndarray | None:
        return None if self.truth is None else self.labels == self.truth

    @cached_property
    def counts(self) -> np.ndarray:
        """Images per predicted class."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    @cached_property
    def confidence(self) -> np.ndarray | None:
        """The predicted class's share; (N,)."""
        return None if self.shares is None else self.shares[np.arange(len(self.labels)), self.labels]

    @cached_property
    def margin(self) -> np.ndarray | None:
        """The best class's lead over the second; (N,)."""
        if self.shares is None:
            return None
        second, best = np.sort(self.shares, axis=1)[:, -2:].T
        return best - second

    @cached_property
    def confusion(self) -> np.ndarray:
        """Images by true (row) and predicted class; (C, C)."""
        classes = len(self.class_names)
        return np.bincount(self.truth * classes + self.labels, minlength=classes**2).reshape(classes, classes)

    @cached_property
    def per_class(self) -> ByClass:
        """Precision, recall, F1 and number of images by class."""
        return ByClass.of(self.truth, self.labels, len(self.class_names))

    @cached_property
    def calibration(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(confidence, share of right labels, images) of the bins that hold any; each (B,)."""
        found = Calibration.of(self.right, self.confidence)
        full, images = found.images > 0, found.images[found.images > 0]
        return found.confidence[full] / images, found.right[full] / images, images

    @cached_property
    def calibration_error(self) -> float:
        return Calibration.of(self.right, self.confidence).error

    @cached_property
    def two_way(self) -> np.ndarray:
        """Images by label (row) and what a member says instead (column), each image once in a cell; (C, C)."""
        classes = len(self.class_names)
        apart = [np.flatnonzero(member.labels != self.labels) for member in self.members]
        told = [rows * classes + member.labels[rows] for rows, member in zip(apart, self.members, strict=True)]
        row, label = np.divmod(np.unique(np.concatenate([np.zeros(0, int), *told])), classes)
        return np.bincount(self.labels[row] * classes + label, minlength=classes**2).reshape(classes, classes)

    @cached_property
    def dissent(self) -> np.ndarray:
        """Share of the members, by weight, that label an image differently; (N,)."""
        weights = np.array([member.weight or 1.0 for member in self.members])
        apart = [member.labels != self.labels for member in self.members]
        return np.average(apart, axis=0, weights=weights) if apart else np.zeros(len(self.labels))

    @cached_property
    def doubtful(self) -> np.ndarray:
        """Rows of images in the order they are worth a look: (1 - margin) x (1 + dissent), largest first; (N,)."""
        doubt = (1 - self.margin) * (1 + self.dissent)
        return np.argsort(-doubt, kind="stable")

    @cached_property
    def expected(self) -> np.ndarray:
        """Images of each class if the classes had the stated shares, or equal ones where none are stated; (C,)."""
        classes = len(self.class_names)
        return len(self.labels) * (np.full(classes, 1 / classes) if self.prior is None else self.prior)

    @property
    def expectation(self) -> str:
        """Where `expected` comes from, in words."""
        return "if all were equal (a hint: no prior is stated)" if self.prior is None else "by the stated prior"

    @cached_property
    def off_prior(self) -> np.ndarray:
        """How far each class's count is from `expected`, in standard errors of a random sample of N images; (C,)."""
        variance = self.expected * (1 - self.expected / len(self.labels))
        return (self.counts - self.expected) / np.sqrt(np.maximum(variance, 1e-9))

    @cached_property
    def moved_by_prior(self) -> int:
        """The fewest labels that must change for the histogram to be as `expected` (total variation distance x N)."""
        return round(np.abs(self.counts - self.expected).sum() / 2)

    @cached_property
    def disagreement(self) -> np.ndarray:
        """Share of images that two members label differently; (M, M)."""
        labels_MN = np.stack([member.labels for member in self.members])
        return (labels_MN[:, None] != labels_MN[None]).mean(axis=2)
