"""benchmarks/<name>.yaml: which models are measured on which labelled images."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .schema import ListOf, Names, Recipe, Text, unique

BenchmarkPooling = Literal["embedding", "mean", "median", "max", "logit_mean", "logit_median", "logit_max"]


class Benchmark(Recipe):
    """benchmarks/<name>.yaml: which models are measured on which data sets, with which prompts and poolings."""

    datasets: Names = ()
    """names of `datasets/`"""
    models: Names = ()
    """names of models, or `model@preprocess`"""
    prompts: Names = ("own",)
    """prompt sets; `own` is the data set's"""
    poolings: ListOf[BenchmarkPooling] = ("embedding",)
    """P prompts to C classes: `embedding`, or the mean, median or maximum of probabilities or of logits"""
    split: Text | None = None
    """what is measured (default: each data set's)"""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """of the bootstrap"""
    note: str = ""
    """anything worth knowing, e.g. published figures; the page shows it"""

    @field_validator("datasets", "models", "prompts", "poolings")
    @classmethod
    def _once(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return unique(names, str(info.field_name))

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        for key in ("datasets", "models", "prompts", "poolings"):
            if not getattr(self, key):
                raise ValueError(f"no {key} given")
        return self
