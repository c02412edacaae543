"""Images by similarity: to a sentence, or to another image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..chain import ensemble, text
from ..chain.features import one_vector
from ..core.errors import UserError
from ..maths import zeroshot
from ..recipes.member import Member
from ..recipes.prompts import PromptSet
from .engine import Engine, Evaluated, Values
from .views import View


@dataclass(frozen=True)
class Search:
    """Over the members of a recipe that have a text tower, by their weights."""

    engine: Engine
    seen: Evaluated

    def rows(self, view: View) -> np.ndarray:
        """All rows, most similar first; UserError for a text or an image that there is none of."""
        if view.kind == "text" and not view.text.strip():
            return np.zeros(0, int)
        total = len(self.seen.labels)
        if view.kind == "like" and not (view.row is not None and 0 <= view.row < total):
            raise UserError(f"no image {view.row}")
        return self.by_likeness(view)[0]

    def by_likeness(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """(rows, weighted mean cosine of each), most similar first; both (N,). To an image where a row is named."""
        task, found = self.seen.task, torch.zeros(len(self.seen.labels))
        for member, share in self._members():
            features = self.engine.features(task, member)
            query_1D = self._of_text(member, view.text) if view.row is None else self._of_image(features, view.row)
            for start, stop in task.chunks():
                images_ND = one_vector(features.rows("features", start, stop))
                found[start:stop] += share * zeroshot.prompt_logits(images_ND, query_1D, 1.0)[:, 0]
        order = found.argsort(descending=True, stable=True)
        return order.numpy(), found[order].numpy()

    def _members(self) -> Iterator[tuple[Member, float]]:
        weights = ensemble.members(self.seen.recipe)
        with_text = {member: weight for member, weight in weights.items() if not member.is_head}
        if not with_text:
            raise UserError("no member has a text tower; similarity needs one")
        for member, weight in with_text.items():
            yield member, weight / sum(with_text.values())

    @staticmethod
    def _of_image(features: Values, row: int) -> Tensor:
        return one_vector(features.rows("features", row, row + 1)).float()

    def _of_text(self, member: Member, sentence: str) -> Tensor:
        asked = PromptSet(("",), (sentence,), (0,), (1.0,), ("",), (Path("what is searched for"),))
        return text.of_prompts(self.seen.task, member.model, asked)[0].features
