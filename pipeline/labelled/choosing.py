"""What may be looked at while something is chosen: images evenly picked, and no label of the split that is reported."""

import numpy as np

from ..chain.task import Task
from ..core.errors import Forbidden, UserError
from .task import DatasetTask

MOST_IMAGES = 20_000  # of larger sets this many are looked at, evenly picked


def sampled_rows(task: Task) -> np.ndarray:
    """The images that are looked at."""
    images = len(task.images.ids)
    return np.linspace(0, images - 1, min(images, MOST_IMAGES)).astype(int)


def sampled_truth(task: DatasetTask) -> np.ndarray:
    """Their labels."""
    return np.array(task.truth)[sampled_rows(task)]


def is_reported(task: DatasetTask) -> bool:
    """Whether results are reported on the task's split."""
    return task.split in (task.recipe.split, "test")


def refuse_test_labels(task: Task, allowed: bool, split: str, instead: str) -> None:
    """UserError for a task without labels, or whose labels are those of the split that is reported.

    It tells to give another `split` (how that is written) or something `instead`.
    """
    if not task.labelled:
        raise UserError(f"a competition has no labels to rank with: give DATASET=name, or {instead}")
    if is_reported(task) and not allowed:
        dev = split.format(task.recipe.dev) if task.recipe.dev else f"another split, or 'dev:' in {task.where}"
        raise Forbidden(
            f"{task.where}: {task.split!r} is the split that is reported; its labels are not looked at. "
            f"Give {dev}, {instead}, or TEST_LABELS=1 if you mean it"
        )
