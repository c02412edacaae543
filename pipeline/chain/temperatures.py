"""How the scales of an ensemble's members are matched before they are blended: the registered values of `match`.

Models trained with a sigmoid loss, or with another logit scale, are surer or less sure of the same choice, and the
surest member decides a blend whatever its weight is. A temperature per member evens that out.
"""

import functools
from collections.abc import Callable

from ..core.registry import Registry
from ..maths import zeroshot
from ..recipes import Ensemble
from ..recipes.member import Member

# (member, temperature) -> mean of the largest probability of each image, when that member is blended so tempered
Confidence = Callable[[Member, float], float]

# functions (recipe, {member: weight}, Confidence) -> {member: temperature}
MATCHES = Registry("match", given=3, uses=None)
match = MATCHES.register


@match(uses="image")
def none(recipe: Ensemble, weights: dict[Member, float], confidence: Confidence) -> dict[Member, float]:
    """The members as they are."""
    return dict.fromkeys(weights, 1.0)


@match(uses="image")
def temperature(recipe: Ensemble, weights: dict[Member, float], confidence: Confidence) -> dict[Member, float]:
    """Fixed ones, of the member or of its models.yaml entry.

    One temperature per model, fitted once, holds for other data sets and prompts (LeVine et al. 2023,
    arXiv:2303.12748).
    """
    return {member: recipe.members[member].temperature for member in weights}


@match(uses="test_set")
def confidence(recipe: Ensemble, weights: dict[Member, float], confidence: Confidence) -> dict[Member, float]:
    """Those that give every member the members' average confidence over the test images.

    No label is looked at. About 10 passes over a member's cached probabilities.
    """
    target = sum(weight * confidence(member, 1.0) for member, weight in weights.items())
    return {member: zeroshot.matching_temperature(functools.partial(confidence, member), target) for member in weights}
