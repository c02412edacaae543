"""What each prompt column did: one pass over the images with every prompt left out in turn."""

from dataclasses import dataclass

import numpy as np

from ..chain.columns import Columns
from ..chain.task import Task
from ..maths import zeroshot


@dataclass(frozen=True)
class PromptUse:
    """What one prompt column did, over all images.

    It is the largest of all columns for `largest` images and has the mean probability `mean`. Left out of its
    class, `flips` labels change and `gain` more of them are right (None without truth).
    """

    prompt: str
    label: int
    weight: float
    largest: int
    mean: float
    flips: int
    gain: int | None


def prompt_uses(
    task: Task, probs_of, columns: Columns, how: str, truth, rows: int = 0
) -> tuple[list[PromptUse], np.ndarray]:
    """What each prompt column did, and whose label hangs on one of them (N,), in one pass over the images.

    `probs_of(start, stop)` gives the columns of some images, of `rows` at a time if that is given.
    """
    where = columns.prompt_class, columns.prompt_weight, len(task.class_names)
    count = len(columns.prompts)
    largest, total, flips, gain = np.zeros(count, int), np.zeros(count), np.zeros(count, int), np.zeros(count, int)
    fragile = np.zeros(len(task.images.ids), bool)
    for start, stop in task.chunks(rows):
        probs = probs_of(start, stop)
        scores, without = zeroshot.scores_without_each(probs, *where, how)
        before = scores.argmax(dim=1)
        after = zeroshot.labels_without_each(scores, without, where[0])
        moved = (after != before[:, None]).numpy()
        fragile[start:stop], flips = moved.any(axis=1), flips + moved.sum(axis=0)
        largest += np.bincount(probs.argmax(dim=1).numpy(), minlength=count)
        total += probs.sum(dim=0).numpy()
        if truth is not None:
            right = np.array(truth[start:stop])[:, None]
            gain += (after.numpy() == right).sum(axis=0) - (before.numpy()[:, None] == right).sum(axis=0)
    return [
        PromptUse(
            prompt,
            int(columns.prompt_class[c]),
            float(columns.prompt_weight[c]),
            int(largest[c]),
            float(total[c] / len(task.images.ids)),
            int(flips[c]),
            None if truth is None else int(gain[c]),
        )
        for c, prompt in enumerate(columns.prompts)
    ], fragile
