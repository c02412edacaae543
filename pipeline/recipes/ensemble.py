"""ensembles/<name>.yaml: how the probabilities of several models become classes."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_serializer, model_validator

from .schema import Finite, ListOfNamed, Recipe, Temperature, Text

Pooling = Literal["mean", "median", "max", "embedding"]


class MemberUse(Recipe):
    """A member of an ensemble: its weight, and what it has of its own. A number alone is the weight."""

    weight: Finite
    """only ratios matter"""
    prompts: Text | None = None
    """a prompt set of its own (default: that of the competition or data set); needs `blend: classes`"""
    temperature: Temperature | None = None
    """for `match: temperature` (default: that of its `models.yaml` entry)"""

    @model_serializer(mode="wrap")
    def _as_written(self, dump: Callable[[Any], dict]) -> Any:
        content = {key: value for key, value in dump(self).items() if value is not None}
        return content if len(content) > 1 else self.weight


def _as_mapping(value: Any) -> Any:
    return value if isinstance(value, (dict, MemberUse)) else {"weight": value}


class Ensemble(Recipe):
    """ensembles/<name>.yaml: weighted members, how they are blended, threshold, pooling, refinement."""

    members: dict[str, Annotated[MemberUse, BeforeValidator(_as_mapping)]]
    """`model@preprocess: weight`, or `model: weight`, or with more keys, below: `model: {weight: 0.5, prompts:
    general}`"""
    weights: Literal["given", "auto"] = "given"
    """`given`: those of the members; `auto`: found from the unlabelled images, by how the members' labels agree, where
    neighbours' labels then agree clearly better, and even else (uses the test set); see
    [weights](ensembles.md#weights-without-labels)"""
    blend: Literal["prompts", "classes"] = "prompts"
    """`prompts`: all members have the same prompt columns, which are averaged; `classes`: each member is pooled to
    classes first, for members with different prompt sets and for trained heads"""
    space: Text = "probability"
    """what is averaged: probabilities, or `log` of them: a geometric mean, in which a member that is sure that it is
    *not* so counts"""
    match: Text = "none"
    """scales of the members. `temperature`: the member's, or its `models.yaml` entry's; `confidence`: the
    temperatures that make all members equally sure on average, for sigmoid-trained beside softmax-trained ones
    (uses the test set)"""
    threshold: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    """blended prompt probabilities not above it become 0 before pooling (0 changes nothing)"""
    pooling: Pooling = "mean"
    """P prompts to C classes: `mean`, `max`, `median` of the prompt probabilities, or `embedding`: one mean text
    embedding per class, the CLIP standard"""
    prompt_weights: Text = "given"
    """`given`: those of the prompt files; `uniform`: 1 for each that is not left out; `zpe`: by how well each
    template that all classes share separates the test images (a class's own sentences are scored by their class
    alone); `carprt`: the same for each class by itself. The last two use the test set, and need pooling by `mean`
    or `embedding`"""
    refine: ListOfNamed = ()
    """steps over the class probabilities, in order: `[name, {name: {argument: value}}]`; see
    [refinement](ensembles.md#refinement)"""
    witness: Text | None = None
    """a `model` or `model@preprocess` that takes part in refinement alone, with its image features; it needs no text
    tower; see [witness](ensembles.md#a-witness)"""
    guards: bool = True
    """a refinement step against which something speaks is not kept"""

    @property
    def named(self) -> list[str]:
        """All members, whatever their weight, and the witness."""
        return [*self.members, *([self.witness] if self.witness else [])]

    @field_validator("members")
    @classmethod
    def _weights(cls, members: dict[str, MemberUse]) -> dict[str, MemberUse]:
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
    def _consistent(self) -> Self:
        sets = {member.prompts for member in self.members.values() if member.weight}
        if self.blend == "prompts" and len(sets) > 1:
            raise ValueError(
                "members: they have different prompt sets, whose columns cannot be blended; "
                "'blend: classes' pools each member to classes first"
            )
        if self.blend == "classes" and self.threshold:
            raise ValueError("threshold: is for prompt probabilities and needs 'blend: prompts'")
        if self.weights == "auto" and len({member.weight for member in self.members.values() if member.weight}) > 1:
            raise ValueError("weights: auto finds the members' weights; give each 1, or 0 to leave it out")
        if self.witness and not self.refine:
            raise ValueError("witness: takes part in refinement alone; add 'refine: [recommended]', or remove it")
        unused = [name for name, member in self.members.items() if member.temperature]
        if unused and self.match != "temperature":
            raise ValueError(f"members.{unused[0]}.temperature: needs 'match: temperature'")
        return self
