"""What training learns from: cached image features with labels, and the captions of the classes."""

from functools import cached_property

import numpy as np
import torch

from ..chain import features, text
from ..chain.columns import Columns
from ..chain.task import Runtime
from ..core.digests import digest_of
from ..core.errors import Mismatch
from ..labelled.task import DatasetTask
from ..models import has_text
from ..models.heads import Captions, Examples, TrainingData
from ..recipes.member import Member
from ..recipes.training import Training
from . import sampling


def examples(task: DatasetTask, member: Member) -> Examples:
    """Features and labels of a split; images are encoded only where their features are not cached."""
    seen, _ = features.of_member(task, member)
    rows = seen.rows("features", 0, len(seen.ids)).float()
    if rows.ndim != 2:
        raise Mismatch(
            f"{member}: training needs one feature per image, and this member has several; take a "
            "preprocess recipe without 'view_pooling: confident', and a model with one vector"
        )
    return Examples(rows, torch.tensor(task.truth))


def captions(task: DatasetTask, model: str) -> Captions:
    """Mean text feature of each class's prompts, the classifier of CLIP, and the logit scale."""
    known, _ = text.of_prompts(task, model, task.prompts)
    return Captions(Columns.of(task.prompts).class_texts(known.features), known.logit_scale)


def encode(task: Runtime, recipe: Training) -> None:
    """Features of all splits of a recipe: what the processes that a launcher starts share."""
    named = [recipe.validation] if isinstance(recipe.validation, str) else []
    for split in (recipe.split, None, *named):
        features.of_member(DatasetTask.of(task, recipe.dataset, asked_split=split), task.project.member(recipe.model))


class TrainingSet:
    """The labelled images of a recipe. Only its split and, if named, its validation split are ever opened."""

    def __init__(self, task: Runtime, recipe: Training):
        self.recipe, self.project = recipe, task.project
        self.member = task.project.member(recipe.model)
        self.task = DatasetTask.of(task, recipe.dataset, asked_split=recipe.split, asked_prompts=recipe.prompts)
        named = isinstance(recipe.validation, str)
        self.validation_task = (
            DatasetTask.of(task, recipe.dataset, asked_split=recipe.validation, asked_prompts=recipe.prompts)
            if named
            else None
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.task.class_names

    @property
    def caption_model(self) -> str | None:
        """The model whose text tower captions the classes: the recipe's, or the member's own if it has one."""
        model = self.recipe.captions or self.member.model
        if not self.recipe.captions and not has_text(model, self.project.model(model)):
            return None
        return model

    @cached_property
    def captions(self) -> Captions | None:
        return captions(self.task, self.caption_model) if self.caption_model else None

    @cached_property
    def examples(self) -> Examples:
        return examples(self.task, self.member)

    def made_from(self, captioned: bool) -> dict:
        """What decides the result of training, besides the recipe; JSON-able. `captioned`: by a method with text."""
        made = {
            "features": features.stage(self.task, self.member).digest,
            "classes": list(self.class_names),
            "labels": digest_of({"labels": self.task.truth}),
        }
        if self.validation_task:
            made |= {
                "validation": features.stage(self.validation_task, self.member).digest,
                "validation_labels": digest_of({"labels": self.validation_task.truth}),
            }
        if captioned and self.caption_model:
            made |= {"text": text.digest(self.task, self.caption_model), "prompts": self.task.prompts.digest}
        return made

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the split that are trained on, and those of it that only choose, by share, shots and seed."""
        labels, recipe, held = np.array(self.task.truth), self.recipe, np.zeros(len(self.task.truth), bool)
        if not self.validation_task:
            held = sampling.held_out(labels, recipe.validation, recipe.seed)
        train, validation = np.flatnonzero(~held), np.flatnonzero(held)
        if recipe.shots:
            train = train[sampling.shots(labels[train], recipe.shots, recipe.seed)]
        return torch.from_numpy(train), torch.from_numpy(validation)

    def data(self, train: Examples, captioned: bool = False) -> TrainingData:
        """What a method learns from, as the recipe says; `captioned`: for a method with text."""
        captions = self.captions if captioned else None
        return TrainingData(train, len(self.class_names), captions, self.recipe.balance, self.recipe.seed)

    def parts(self) -> tuple[Examples, Examples]:
        """(what is trained on, what only chooses)."""
        train, validation = self.rows()
        named = self.validation_task
        chosen = examples(named, self.member) if named else self.examples.take(validation)
        return self.examples.take(train), chosen


def counts(labels: torch.Tensor, classes: int) -> np.ndarray:
    """Images per class (C,)."""
    return torch.bincount(labels, minlength=classes).numpy()
