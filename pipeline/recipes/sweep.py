"""sweeps/<name>.yaml: what is varied of an ensemble recipe."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from .schema import NAME, Finite, ListOf, Names, Recipe, Text


class Subsets(Recipe):
    """Random subsets of a prompt set's templates: how many, and what share of the templates each keeps."""

    number: Annotated[int, Field(ge=1, le=200)]
    """how many subsets"""
    share: Annotated[Finite, Field(gt=0, lt=1)] = 0.5
    """of the shared templates that each keeps"""


class Vary(Recipe):
    """What a sweep varies of its base recipe; a key that is not here stays as it is there.

    Member weights are in the order of the base's members, or all multiples of 1/weight_steps that sum to 1.
    """

    weights: ListOf[ListOf[Finite]] = ()
    """member weights, a list per candidate, in the order of the members"""
    weight_steps: Annotated[int, Field(ge=1, le=100)] | None = None
    """`10`: all multiples of 1/10 that sum to 1, instead of `weights`"""
    prompts: Names = ()
    """prompt sets"""
    templates: Subsets | None = None
    """`{number: 20, share: 0.5}`: random halves of the shared templates"""
    blend: Names = ()
    """values of that key of an ensemble"""
    match: Names = ()
    """values of that key"""
    space: Names = ()
    """values of that key"""
    threshold: ListOf[Finite] = ()
    """values of that key"""
    pooling: Names = ()
    """values of that key"""
    prompt_weights: Names = ()
    """values of that key"""
    refine: ListOf[list] = ()
    """values of that key: a list of lists of steps"""

    @model_validator(mode="after")
    def _something_once(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing is varied")
        if self.weights and self.weight_steps:
            raise ValueError("weights and weight_steps: give one of them")
        return self


class Sweep(Recipe):
    """sweeps/<name>.yaml: what is varied of an ensemble recipe, and on which images it is compared."""

    dataset: Text | None = None
    """the images, with labels; compared by accuracy on its development split"""
    competition: Text | None = None
    """or the images without labels; compared by stability"""
    split: Text | None = None
    """of the data set"""
    base: Text
    """the ensemble recipe that is varied"""
    out: Text | None = None
    """name of the recipe that is written, and of the prompt set if templates were chosen; none: nothing is written"""
    random: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """how many combinations are drawn (default: all)"""
    seed: int = 0
    """of what is drawn"""
    vary: Vary
    """lists of values, below"""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """of the bootstrap"""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) == (self.competition is None):
            raise ValueError("give 'dataset:' (compared by accuracy on its dev split) or 'competition:' (by stability)")
        if self.split and not self.dataset:
            raise ValueError("split: goes with 'dataset:'")
        if self.out and not NAME.fullmatch(self.out):
            raise ValueError(f"out: {self.out!r} is no recipe name: letters, digits, '.', '_' and '-' only")
        return self
