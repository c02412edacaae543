"""What the columns of probabilities are. They travel with the tensors: every file of (N, P) values holds them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..core.artefacts import Artefact
from ..maths import zeroshot
from ..recipes.prompts import PromptSet

# what the text features are that images are compared with: one per prompt, or the mean one of each class
Kind = Literal["prompts", "class_mean"]
KINDS: tuple[Kind, ...] = ("prompts", "class_mean")


@dataclass(frozen=True, eq=False)
class Columns:
    """P columns: their texts, the class of each (P,) int64, its weight (P,) float32; and the C class names."""

    prompts: list[str]
    prompt_class: Tensor
    prompt_weight: Tensor
    class_names: list[str]

    @classmethod
    def of(cls, prompts: PromptSet, kind: Kind = "prompts") -> "Columns":
        """One per prompt of a set, or one per class with the mean of its text features."""
        if kind == "prompts":
            labels = torch.tensor(prompts.prompt_class)
            return cls(list(prompts.prompts), labels, torch.tensor(prompts.weights), list(prompts.class_names))
        counts = [prompts.prompt_class.count(label) for label in range(len(prompts.class_names))]
        names = zip(counts, prompts.class_names, strict=True)
        return cls.classes(prompts.class_names, [f"mean of {count} prompts of {name}" for count, name in names])

    @classmethod
    def classes(cls, class_names: tuple[str, ...], texts: list[str] | None = None) -> "Columns":
        """One per class, pooled already."""
        count = len(class_names)
        return cls(texts or list(class_names), torch.arange(count), torch.ones(count), list(class_names))

    @classmethod
    def read(cls, artefact: Artefact, row: int = 0) -> "Columns":
        """Those of an artefact, of which this row is computed."""
        shard = artefact.read(*artefact.shards(row, row + 1)[0])
        return cls(**{name: shard[name] for name in cls.__dataclass_fields__})

    def saved(self) -> dict:
        """As a shard holds them."""
        return dict(vars(self))

    def pool(self, probs_NP: Tensor, how: str) -> Tensor:
        """(N, P) -> (N, C)."""
        return zeroshot.pool(probs_NP, self.prompt_class, self.prompt_weight, len(self.class_names), how)

    def class_probs(self, probs_NP: Tensor, how: str) -> Tensor:
        """(N, P) -> (N, C), rows that sum to 1."""
        return zeroshot.class_probs(probs_NP, self.prompt_class, self.prompt_weight, len(self.class_names), how)

    def class_texts(self, text_PD: Tensor) -> Tensor:
        """Text features (P, D) -> their mean of each class, L2-normalised (C, D)."""
        return zeroshot.class_text_features(text_PD, self.prompt_class, self.prompt_weight, len(self.class_names))
