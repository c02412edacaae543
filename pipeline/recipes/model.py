"""models.yaml, an entry each: where a checkpoint is, what is known of it, and how it likes its images."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from .schema import Finite, Names, Recipe, Scalar, Temperature, Text, Triple

HEAD = "head"  # the family of what is trained on another member's image features; its columns are classes
ResizeMode = Literal["squash", "shortest", "longest"]
# the self-checks of a checkpoint that an entry may silence by name (pipeline/models/_checks.py)
Check = Literal[
    "activation",
    "mean",
    "position_embedding",
    "prompts_cut",
    "resize_mode",
    "size",
    "std",
    "unexpected_keys",
    "vocabulary",
]


class ModelEntry(Recipe):
    """One entry of models.yaml: where a checkpoint is, what is known of it, and how it likes its images.

    `size` to `logit_scale` are declared facts, compared with what the checkpoint itself says when it is loaded.
    """

    family: Text
    # where it is
    base: Text | None = None  # of family head: the member whose image features it takes
    architecture: str | None = None
    tag: str | None = None
    hub: str | None = None
    file: str | None = None
    revision: str | None = None
    weights: str | None = None
    tokenizer: str | None = None
    download_gb: Annotated[Finite, Field(gt=0)] | None = None
    # what is known of it
    size: Annotated[int, Field(gt=0, le=4096)] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    resize_mode: ResizeMode | None = None
    context_length: Annotated[int, Field(gt=2)] | None = None
    quick_gelu: bool | None = None
    logit_scale: Annotated[Finite, Field(gt=0)] | None = None
    temperature: Temperature | None = None  # for ensembles with 'match: temperature'
    trained_on: Names = ()  # labelled data that it was trained on here, e.g. intel-dev:train
    parameters: Annotated[Finite, Field(gt=0)] | None = None  # millions
    imagenet: Annotated[Finite, Field(ge=0, le=100)] | None = None  # zero-shot ImageNet-1k top-1, percent
    licence: str = ""
    note: str = ""
    # how it is used
    preprocess: Text
    options: dict[str, Scalar] = {}
    fp32_layers: Names = ()
    allow: Annotated[tuple[Check, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = ()

    @model_validator(mode="after")
    def _has_a_source(self):
        if not (self.weights or self.tag or self.hub):
            raise ValueError("no checkpoint: give 'weights' (a local file or folder), 'tag' or 'hub'")
        return self

    @model_validator(mode="after")
    def _head_has_a_base(self):
        if (self.family == HEAD) != (self.base is not None):
            raise ValueError(
                f"base: the member whose features a trained head takes; family {HEAD} needs it, and others have none"
            )
        return self

    @model_validator(mode="after")
    def _size_is_free_for_convolutions_only(self):
        if "size" in self.allow and self.family != "timm":
            raise ValueError(
                "allow: 'size' is for backbones of family timm, whose convolutions take any size; with "
                "position embeddings it is 'position_embedding'"
            )
        return self
