"""Feature spaces: images and the classes' texts as one member sees them.

Shape suffixes: S images of a subsample, C classes, D dimensions.
"""

from dataclasses import dataclass

import numpy as np

from ..chain.columns import Columns
from ..chain.task import Task
from ..core import artefacts
from ..core.artefacts import Artefact
from ..recipes.member import Member

SAMPLE = 3000  # images in t-SNE and PCA


@dataclass(frozen=True)
class Space:
    """A member's features of some images (S, D), which ones (S,), and of the classes' texts (C, D) if known."""

    member: str
    rows: np.ndarray
    features: np.ndarray
    prototypes: np.ndarray | None


def of_member(task: Task, member: str, seen: Artefact, text_digest: str, columns: Columns) -> Space:
    """Features of at most SAMPLE images, evenly spread, and of the classes' texts (`text_digest`: of their cache)."""
    total = len(task.images.ids)
    rows = np.unique(np.linspace(0, total - 1, min(total, SAMPLE)).astype(int))
    parts = []
    for start, stop in task.chunks():
        here = rows[(rows >= start) & (rows < stop)] - start
        some = seen.rows("features", start, stop)[here].float()
        some = some if some.ndim == 2 else some.flatten(1, -2).mean(dim=1)  # several views or vectors: their mean
        parts.append(some.numpy())
    return Space(member, rows, np.concatenate(parts), _prototypes(task, member, text_digest, columns))


def _prototypes(task: Task, member: Member, digest: str, columns: Columns) -> np.ndarray | None:
    """Mean text feature of each class, (C, D), if all its prompts are among those that were encoded."""
    known = artefacts.load(task.project.root / "cache" / "text" / member.model / f"{digest}.pt", digest)
    row = {prompt: number for number, prompt in enumerate(known["prompts"])} if known else {}
    if not row.keys() >= set(columns.prompts):
        return None
    texts = known["features"][[row[prompt] for prompt in columns.prompts]]
    return columns.class_texts(texts).numpy()
