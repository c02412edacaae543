"""sweeps/<name>.yaml: what is varied of an ensemble recipe."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from .schema import NAME, Finite, Names, Recipe, Text, as_tuple, tuple_of_tuples


class Subsets(Recipe):
    """Random subsets of a prompt set's templates: how many, and what share of the templates each keeps."""

    number: Annotated[int, Field(ge=1, le=200)]
    share: Annotated[Finite, Field(gt=0, lt=1)] = 0.5


class Vary(Recipe):
    """What a sweep varies of its base recipe; a key that is not here stays as it is there.

    Member weights are in the order of the base's members, or all multiples of 1/weight_steps that sum to 1.
    """

    weights: Annotated[tuple[tuple[Finite, ...], ...], BeforeValidator(tuple_of_tuples)] = ()
    weight_steps: Annotated[int, Field(ge=1, le=100)] | None = None
    prompts: Names = ()
    templates: Subsets | None = None
    blend: Names = ()
    match: Names = ()
    space: Names = ()
    threshold: Annotated[tuple[Finite, ...], BeforeValidator(as_tuple)] = ()
    pooling: Names = ()
    prompt_weights: Names = ()
    refine: Annotated[tuple[list, ...], BeforeValidator(as_tuple)] = ()

    @model_validator(mode="after")
    def _something_once(self):
        if not self.model_fields_set:
            raise ValueError("nothing is varied")
        if self.weights and self.weight_steps:
            raise ValueError("weights and weight_steps: give one of them")
        return self


class Sweep(Recipe):
    """sweeps/<name>.yaml: what is varied of an ensemble recipe, and on which images it is compared."""

    dataset: Text | None = None
    competition: Text | None = None
    split: Text | None = None
    base: Text
    out: Text | None = None
    random: Annotated[int, Field(ge=1, le=100_000)] | None = None  # candidates drawn; None: all
    seed: int = 0
    vary: Vary
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000

    @model_validator(mode="after")
    def _one_source(self):
        if (self.dataset is None) == (self.competition is None):
            raise ValueError("give 'dataset:' (compared by accuracy on its dev split) or 'competition:' (by stability)")
        if self.split and not self.dataset:
            raise ValueError("split: goes with 'dataset:'")
        if self.out and not NAME.fullmatch(self.out):
            raise ValueError(f"out: {self.out!r} is no recipe name: letters, digits, '.', '_' and '-' only")
        return self
