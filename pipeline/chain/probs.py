"""Stage infer: features of images and prompts -> prompt probabilities of one member, in cache/<competition>/probs/.

A trained head gives class probabilities from the image features of its base, without prompts.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..core.errors import Mismatch
from ..maths import zeroshot
from ..models import heads
from ..recipes import Preprocess
from ..recipes.member import Member
from ..recipes.prompts import PromptSet
from . import features, text
from .checkpoints import identity
from .columns import Columns, Kind
from .stage import Advance, Stage, Work, declare, make
from .task import Task

CHUNK = 4096  # images whose probabilities are computed at a time
OfFeatures = Callable[[Tensor], Tensor]  # image features of some images -> their probabilities (n, P)


def stage(
    task: Task,
    member: Member,
    kind: Kind = "prompts",
    prompts: PromptSet | None = None,
    find: Callable[[], PromptSet] | None = None,
) -> Stage:
    """`probs` float32 (N, P); with kind='class_mean' one column per class. A trained head has one per class anyway.

    `prompts` are another set than the task's, or the same with other weights; `find` gives it with the weights that are
    found from the images.
    """
    seen, images = features.stage(task, member), len(task.images.ids)
    if member.is_head:
        made_from, width, what = head_made_from(task, member), len(task.class_names), "classes"
    else:
        prompts = prompts or task.prompts
        made_from = {"text": text.digest(task, member.model), "prompts": prompts.digest, "columns": kind}
        made_from |= kept_views(task, member)
        width, what = len(prompts.prompts), "prompts"
    return declare(
        task,
        "probs",
        member,
        {"features": seen.digest, **made_from},
        verb="infer",
        begin=lambda encoded: Probabilities(task, member, kind, find() if find else prompts, seen, encoded),
        inputs=(seen,),
        reused=f"probabilities of {images} images x {width} {what} reused",
        row_bytes=4 * (width if kind == "prompts" else len(task.class_names)),
    )


class Seen(Protocol):
    """Image features of all images, in files or in memory."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        """As Artefact.rows."""


class Probabilities(Work):
    """The work of the stage, from the image features `seen`. `encoded` is how many images were encoded for it."""

    def __init__(self, task: Task, member: Member, kind: Kind, prompts: PromptSet | None, seen: Seen, encoded: int):
        self.member, self.seen, self.encoded = member, seen, encoded
        if member.is_head:
            self.of, self.columns = head_probs(task, member), Columns.classes(task.class_names)
            self.how = f"a head on {member.tower}"
        else:
            known, new = text.of_prompts(task, member.model, prompts)
            self.of, self.columns = prompt_probs(task, member, kind, prompts, known), Columns.of(prompts, kind)
            self.how = f"{new} prompts encoded, {len(prompts.prompts) - new} reused"

    def rows(self, start: int, stop: int, advance: Advance) -> dict:
        return {"probs": in_chunks(self.of, self.seen, start, stop), **self.columns.saved()}

    def told(self, rows: int, seconds: float) -> str:
        images = len(self.seen.ids)
        return f"{self.encoded} images encoded, {images - self.encoded} reused; {self.how}; {seconds:.1f} s"


def of_member(task: Task, member: Member, kind: Kind = "prompts", prompts: PromptSet | None = None) -> Stage:
    """The probabilities of a member, computed."""
    found = stage(task, member, kind, prompts)
    make(found)
    return found


def in_chunks(of: OfFeatures, seen: Seen, start: int, stop: int) -> Tensor:
    """Probabilities (n, P) of images start..stop."""
    return torch.cat([of(rows) for rows in seen.rows("features", start, stop).split(CHUNK)])


def prompt_probs(task: Task, member: Member, kind: Kind, prompts: PromptSet, known: text.Text) -> OfFeatures:
    """Those of a member with a text tower; `known` are the features of `prompts`."""
    recipe, texts_PD = task.project.preprocess(member.preprocess), known.features
    if kind == "class_mean":
        texts_PD = Columns.of(prompts).class_texts(texts_PD)
    return lambda images: view_probs(recipe, images, texts_PD, known.logit_scale)


def view_probs(recipe: Preprocess, image_features: Tensor, text_features_PD: Tensor, logit_scale: float) -> Tensor:
    """Probabilities (N, P) from features as a preprocess recipe gives them: (N, D), or of views (N, V, D)."""
    if recipe.view_pooling != "confident":
        return zeroshot.prompt_probs(image_features, text_features_PD, logit_scale)
    images, views = image_features.shape[:2]
    probs = zeroshot.prompt_probs(image_features.flatten(0, 1), text_features_PD, logit_scale)
    return zeroshot.confident_views(probs.unflatten(0, (images, views)), recipe.keep_views or (views + 1) // 2)


def kept_views(task: Task, member: Member) -> dict:
    """What decides how confident views are kept; nothing for other recipes."""
    keep = task.project.preprocess(member.preprocess).keep_views
    return {"keep_views": keep} if keep else {}


def head_made_from(task: Task, member: Member) -> dict:
    """What decides a trained head's probabilities beside the features; UserError for other classes than the task's."""
    head_columns(task, member)
    return {"head": identity(task, member.model), "classes": list(task.class_names)}


def _head_file(task: Task, member: Member) -> tuple:
    """Where a head's weights lie, and where that is written."""
    project = task.project
    return project.root / project.model(member.model).weights, f"{project.model_file(member.model)}: {member.model}"


def head_columns(task: Task, member: Member) -> list[int]:
    """Which of a head's columns are the task's classes, in their order."""
    path, where = _head_file(task, member)
    return heads.columns(heads.describe(path, where)["class_names"], task.class_names, f"{where}: {task.where}")


def head_probs(task: Task, member: Member) -> OfFeatures:
    """Those of a trained head, from image features (n, D)."""
    path, where = _head_file(task, member)
    head, columns = heads.load(path, where), head_columns(task, member)

    def probs(images: Tensor) -> Tensor:
        if images.ndim != 2:
            recipe = task.project.where("preprocess", member.preprocess)
            raise Mismatch(f"{where}: {recipe} gives several features per image; a head takes one")
        return head.probs(images)[:, columns]

    return probs
