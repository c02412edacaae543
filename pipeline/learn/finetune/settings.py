"""The settings of `method: {finetune: {...}}` in training/<name>.yaml."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ...recipes import Finite, ListOfNamed, Recipe
from . import augment

Positive = Annotated[Finite, Field(gt=0)]
Natural = Annotated[int, Field(gt=0)]
Share = Annotated[Finite, Field(ge=0, lt=1)]
Alphas = Annotated[
    tuple[Annotated[Finite, Field(ge=0, le=1)], ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
]


class Finetune(Recipe):
    """How a tower is trained; a batch is what one step of the optimiser sees, whatever parts it is computed in."""

    loss: Literal["likelihood", "contrastive"]  # a linear head, or the frozen captions of the classes
    head: Literal["probe", "zero"] = "probe"  # what the linear head starts from
    epochs: Natural = 10
    batch: Natural = 64
    accumulate: Natural = 1
    learning_rate: Positive = 1e-4
    head_learning_rate: Positive | None = None
    layer_decay: Annotated[Finite, Field(gt=0, le=1)] = 1.0
    weight_decay: Annotated[Finite, Field(ge=0)] = 0.01
    clip: Positive | None = 1.0
    label_smoothing: Share = 0.0
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup: Share = 0.1
    plateau_patience: Natural = 2
    plateau_factor: Annotated[Finite, Field(gt=0, lt=1)] = 0.5
    patience: Natural | None = None
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    batch_norm: Literal["frozen", "trained"] = "frozen"
    augment: ListOfNamed | Literal["none"] = (("crop", None), ("hflip", None))
    alphas: Alphas = tuple(step / 10 for step in range(11))
    save_minutes: Annotated[Finite, Field(ge=0)] = 5.0

    @model_validator(mode="after")
    def _consistent(self):
        if self.loss == "contrastive" and {"head", "head_learning_rate"} & self.model_fields_set:
            raise ValueError("head and head_learning_rate are of 'loss: likelihood'; captions are not trained")
        if not self.alphas:
            raise ValueError("alphas: give at least one, e.g. [1.0] for the trained weights alone")
        return self

    @property
    def augmentations(self) -> tuple[tuple[str, Any], ...]:
        return () if self.augment == "none" else self.augment


def read(argument: Any, where: str) -> Finetune:
    """The checked settings; UserError, naming `where` they are written, for wrong ones."""
    settings = Finetune.parse(argument, where)
    augment.check(settings.augmentations, where)
    return settings
