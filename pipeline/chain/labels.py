"""Labels alone, on a cluster: found where the shards are, so that one number of each image comes back.

Where more is needed all class probabilities have to be in one place, and `classes.decide` gathers them: refinement
looks at all images together, and some competitions ask for probabilities or the best few.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cluster.pool import Shard
from . import classes, ensemble, rules, threshold
from .columns import Columns
from .stage import Stage, cluster, made
from .suspicions import ties
from .task import CompetitionTask, Task


@dataclass(frozen=True)
class Labels:
    """What a recipe says of N images, as far as a file of labels needs it, and of how many it says nothing clear."""

    probs: Stage  # the thresholded blend
    label_N: Tensor
    zero: int = 0
    tied: int = 0
    seen: int = 0  # of so many images that there is a picture of
    outcomes: tuple = ()
    refined: None = None

    @property
    def labels(self) -> list[int]:
        return self.label_N.tolist()


def suffice(task: CompetitionTask, name: str) -> bool:
    """Whether a run on a cluster needs no more of a recipe than labels."""
    asked = task.recipe
    more = asked.gives_probabilities or asked.top or asked.also.probabilities or asked.also.top
    return bool(task.ray) and not (task.project.ensemble(name).refine or more)


def decide(task: Task, name: str) -> Labels:
    """As `classes.decide`, without the probabilities."""
    rules.check(task, name)
    recipe = task.project.ensemble(name)
    probs = made(threshold.stage(task, name))
    whole_N = classes.with_picture(task, recipe)
    begin = functools.partial(Finding, task, probs, Columns.read(probs), ensemble.pooling(recipe), whole_N)
    label_N = torch.empty(len(task.images.ids), dtype=torch.int32)
    zero = tied = 0
    found = cluster(task).run(f"labels {name}", f"labels {probs.digest} {recipe.pooling}", begin, task.chunks())
    for start, stop, (labels, more_zero, more_tied) in found:
        label_N[start:stop] = torch.frombuffer(bytearray(labels), dtype=torch.int32)
        zero, tied = zero + more_zero, tied + more_tied
    if not whole_N.all():
        label_N[~whole_N] = int(classes.likely(task, label_N[whole_N]).argmax())
    return Labels(probs, label_N, zero, tied, int(whole_N.sum()))


@dataclass(frozen=True)
class Finding:
    """In an actor: labels of the rows start..stop, as bytes of int32, and how many have no label or two."""

    task: Task
    probs: Stage
    columns: Columns
    how: str
    whole_N: Tensor  # which images there is a picture of

    def __call__(self, start: int, stop: int, following: Shard | None) -> tuple[bytes, int, int]:
        pooled_NC = classes.pooled(self.task, self.probs, self.columns, self.how, start, stop)
        return pooled_NC.argmax(dim=1).int().numpy().tobytes(), *ties(pooled_NC[self.whole_N[start:stop]])
