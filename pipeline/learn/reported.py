"""What a trained head is worth on the split that is reported. Runs after training; nothing flows back."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..chain.task import Runtime
from ..core.console import say
from ..core.errors import UserError
from ..core.tables import table
from ..labelled.task import DatasetTask
from ..maths import metrics, stacking
from ..maths.metrics import Interval, Predictions
from ..maths.stacking import Curve
from ..models import has_text, heads
from ..models.heads import Examples, Head
from ..recipes.training import Training
from . import measure, seen_unseen, training_set
from .trained import Trained

SHOWN = {"acc1": "acc1", "macro_f1": "macro F1", "mean_per_class_recall": "recall", "ece": "ECE"}


@dataclass(frozen=True)
class Measured:
    """A head on the reported split: `logits` (N, C) are before its bias."""

    name: str
    task: DatasetTask
    examples: Examples
    head: Head

    @cached_property
    def probs(self) -> torch.Tensor:
        return self.head.probs(self.examples.features)

    @cached_property
    def predictions(self) -> Predictions:
        return measure.predictions(self.probs, self.examples.labels)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        return metrics.intervals(self.predictions)

    @cached_property
    def logits(self) -> np.ndarray:
        return measure.logits(self.head, self.examples)

    def curve(self, unseen: np.ndarray) -> Curve:
        """Seen against unseen accuracy among all classes, at every bias; `unseen` is a mask (C,)."""
        return stacking.curve(self.logits, self.examples.labels.numpy(), ~unseen)

    @property
    def bias(self) -> float:
        """What is subtracted from the logits of the seen classes."""
        return float(self.head.seen_bias[self.head.seen_bias.abs().argmax()])

    def groups(self, unseen: np.ndarray) -> list[tuple[float, tuple[float, float, float], Predictions]]:
        """(bias, (seen, unseen, harmonic mean), predictions): without a bias, and with the chosen one."""
        seen, found = torch.from_numpy(~unseen), []
        for bias in dict.fromkeys((0.0, self.bias)):
            probs = (torch.from_numpy(self.logits) - bias * seen.float()).softmax(dim=1)
            found.append((bias, self.curve(unseen).at(bias), measure.predictions(probs, self.examples.labels)))
        return found


def measure_heads(task: Runtime, recipe: Training, trained: list[Trained], beside: bool = False) -> list[Measured]:
    """Every head of a run on the reported split of its data set, printed.

    With unseen classes, or if it is asked for, zero-shot `beside` them.
    """
    test_task = DatasetTask.of(task, recipe.dataset, asked_prompts=recipe.prompts)
    examples = training_set.examples(test_task, test_task.project.member(trained[0].record["base"]))
    found = [
        Measured(one.name, test_task, examples, heads.load(one.folder / "head.safetensors", str(one.folder)))
        for one in trained
    ]
    if recipe.unseen:
        if trained[0].record["zero_shot_bias"] is not None:
            found.append(Measured("zero-shot", test_task, examples, _calibrated_zero_shot(test_task, trained[0])))
        print(table(GZSL_HEADER, gzsl_rows(found, unseen_of(trained[0]))))
    else:
        if beside:
            found += _zero_shot(test_task, trained[0], examples)
        print_table(found)
    say("train", trained[0].name, f"measured on {len(examples)} images of {recipe.dataset}, split {test_task.split}")
    return found


def _zero_shot(task: DatasetTask, trained: Trained, examples: Examples) -> list[Measured]:
    """What the model's own text tower says of the same images, what training has to beat; [] where it has none."""
    model = task.project.member(trained.record["base"]).model
    if not has_text(model, task.project.model(model)):
        say("train", "zero-shot", f"{model} has an image tower only: nothing to compare with")
        return []
    try:
        captions = training_set.captions(task, model)
    except UserError as error:  # a data set whose prompts are not written yet can be probed all the same
        say("train", "zero-shot", f"not beside it: {error}")
        return []
    return [Measured("zero-shot", task, examples, seen_unseen.zero_shot(captions))]


def print_table(measured: list[Measured]) -> None:
    """Print the measures of each with half of their intervals."""
    rows = [[one.name, *(str(one.intervals[key]) for key in SHOWN)] for one in measured]
    print(table(("model", *SHOWN.values()), rows))


def unseen_of(trained: Trained) -> np.ndarray:
    return np.array(trained.record["unseen"], bool)


def _calibrated_zero_shot(task: DatasetTask, trained: Trained) -> Head:
    """The captions alone, their bias chosen on the same validation classes as that of the trained heads."""
    head = seen_unseen.zero_shot(training_set.captions(task, task.project.member(trained.record["base"]).model))
    return heads.with_bias(head, torch.from_numpy(~unseen_of(trained)), trained.record["zero_shot_bias"])


GZSL_HEADER = ("model", "bias", "seen", "unseen", "harmonic mean", "AUSUC", "acc1", "macro F1")


def gzsl_rows(measured: list[Measured], unseen: np.ndarray) -> list[list[str]]:
    """Among all classes: mean per-class accuracy of seen and of unseen ones, without and with the chosen bias."""
    rows = []
    for one in measured:
        for bias, groups, predictions in one.groups(unseen):
            scores = metrics.scores(predictions)
            values = (bias, *groups, one.curve(unseen).area, scores["acc1"], scores["macro_f1"])
            rows.append([one.name, *(f"{value:.3f}" for value in values)])
    return rows
