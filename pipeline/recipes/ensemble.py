"""ensembles/<name>.yaml: how the probabilities of several models become classes."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_serializer, model_validator

from .schema import Finite, Recipe, Temperature, Text, list_of_named, listed

Pooling = Literal["mean", "median", "max", "embedding"]
PromptWeights = Literal["given", "uniform", "zpe", "carprt"]
Match = Literal["none", "temperature", "confidence"]


class MemberWeight(Recipe):
    """A member of an ensemble: its weight, and what it has of its own. A number alone is the weight."""

    weight: Finite
    prompts: Text | None = None  # None: the prompt set of the competition or data set
    temperature: Temperature | None = None  # None: that of its models.yaml entry

    @model_serializer(mode="wrap")
    def _as_written(self, dump) -> Any:
        content = {key: value for key, value in dump(self).items() if value is not None}
        return content if len(content) > 1 else self.weight


def _as_mapping(value: Any) -> Any:
    return value if isinstance(value, (dict, MemberWeight)) else {"weight": value}


class Ensemble(Recipe):
    """ensembles/<name>.yaml: weighted members, how they are blended, threshold, pooling, refinement."""

    members: dict[str, Annotated[MemberWeight, BeforeValidator(_as_mapping)]]
    blend: Literal["prompts", "classes"] = "prompts"
    space: Literal["probability", "log"] = "probability"
    match: Match = "none"
    threshold: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    pooling: Pooling = "mean"
    prompt_weights: PromptWeights = "given"
    refine: Annotated[
        tuple[tuple[str, Any], ...],
        BeforeValidator(lambda values: () if values == [] else list_of_named(values)),
        PlainSerializer(listed),
    ] = ()
    guards: bool = True

    @field_validator("members")
    @classmethod
    def _weights(cls, members: dict[str, MemberWeight]) -> dict[str, MemberWeight]:
        if not members:
            raise ValueError("an ensemble needs at least one member, 'model@preprocess: weight'")
        negative = [name for name, member in members.items() if member.weight < 0]
        if negative:
            raise ValueError(f"negative weights: {negative}")
        if not any(member.weight for member in members.values()):
            raise ValueError("all weights are zero")
        if not math.isfinite(sum(member.weight for member in members.values())):
            raise ValueError("the sum of the weights is not finite; only ratios matter, so give smaller ones")
        return members

    @model_validator(mode="after")
    def _consistent(self):
        sets = {member.prompts for member in self.members.values() if member.weight}
        if self.blend == "prompts" and len(sets) > 1:
            raise ValueError(
                "members: they have different prompt sets, whose columns cannot be blended; "
                "'blend: classes' pools each member to classes first"
            )
        if self.blend == "classes" and self.threshold:
            raise ValueError("threshold: is for prompt probabilities and needs 'blend: prompts'")
        if self.prompt_weights in ("zpe", "carprt") and self.pooling not in ("mean", "embedding"):
            raise ValueError(f"prompt_weights: {self.prompt_weights} needs pooling 'mean' or 'embedding'")
        unused = [name for name, member in self.members.items() if member.temperature]
        if unused and self.match != "temperature":
            raise ValueError(f"members.{unused[0]}.temperature: needs 'match: temperature'")
        return self
