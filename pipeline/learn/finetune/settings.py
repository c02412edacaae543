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

    loss: Literal["likelihood", "contrastive"]
    """`likelihood`: a linear head on top; `contrastive`: against the frozen captions of the classes"""
    head: Literal["probe", "zero"] = "probe"
    """what the linear head starts from: a linear probe, or zero"""
    epochs: Natural = 10
    """at most"""
    batch: Natural = 64
    """images of a step"""
    accumulate: Natural = 1
    """a step is computed in so many parts, with the same result"""
    learning_rate: Positive = 1e-4
    """of AdamW"""
    head_learning_rate: Positive | None = None
    """of the linear head (default: `learning_rate`)"""
    layer_decay: Annotated[Finite, Field(gt=0, le=1)] = 1.0
    """a layer learns so many times as fast as the next one"""
    weight_decay: Annotated[Finite, Field(ge=0)] = 0.01
    """of AdamW"""
    clip: Positive | None = 1.0
    """gradients are clipped to this norm"""
    label_smoothing: Share = 0.0
    """of the cross-entropy"""
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """of the learning rate, after the warm-up"""
    warmup: Share = 0.1
    """share of all steps"""
    plateau_patience: Natural = 2
    """epochs without a better `metric` before `plateau` lowers the rate"""
    plateau_factor: Annotated[Finite, Field(gt=0, lt=1)] = 0.5
    """by which it lowers it"""
    patience: Natural | None = None
    """epochs without a better `metric` before it stops (default: none, it goes on to the end)"""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """of the forward pass; `auto` is bf16 on a GPU, fp32 on a CPU; weights stay fp32"""
    gradient_checkpointing: bool = False
    """less memory for more time"""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """statistics of batch normalisation"""
    augment: ListOfNamed | Literal["none"] = (("crop", None), ("hflip", None))
    """`none` or a list, below"""
    alphas: Alphas = tuple(step / 10 for step in range(11))
    """averages of initial and trained weights that are tried on the validation images
    ([2109.01903](https://arxiv.org/abs/2109.01903))"""
    save_minutes: Annotated[Finite, Field(ge=0)] = 5.0
    """between checkpoints inside an epoch; one more after each epoch"""

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
