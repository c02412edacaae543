"""How much each prompt counts when its class is pooled: the registered values of a recipe's `prompt_weights`.

To add one, write it here with `@weighting`: a function of a prompt set, and of the logits of all images under its
prompts, that returns a weight per prompt. One that looks at the logits declares `uses="test_set"`.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..core.errors import Mismatch
from ..core.registry import Registry
from ..maths import prompt_scores, zeroshot
from ..recipes import Ensemble
from ..recipes.member import Member
from ..recipes.prompts import PromptSet
from . import damage, features, text
from .probs import CHUNK
from .task import Task

WEIGHTED = ("mean", "embedding")  # poolings in which prompts can count more or less
Weights = tuple[float, ...]
Logits = Callable[[], Iterable]  # each call yields the logits (n, P) of all images anew, some at a time

WEIGHTINGS = Registry("prompt weighting", given=2, uses=None)
weighting = WEIGHTINGS.register


@weighting(uses="image")
def given(prompts: PromptSet, logits: Logits) -> Weights:
    """Those of the YAML files."""
    return prompts.weights


@weighting(uses="image")
def uniform(prompts: PromptSet, logits: Logits) -> Weights:
    """1 for every prompt that is not left out (by a weight of 0)."""
    return tuple(float(weight > 0) for weight in prompts.weights)


@weighting(uses="test_set")
def zpe(prompts: PromptSet, logits: Logits) -> Weights:
    """Zero-shot Prompt Ensembling: one weight per template that all classes share (prompt_scores.zpe)."""
    return _scored(prompt_scores.zpe, prompts, logits)


@weighting(uses="test_set")
def carprt(prompts: PromptSet, logits: Logits) -> Weights:
    """Class-aware reweighting: a weight per prompt of each class (prompt_scores.carprt)."""
    return _scored(prompt_scores.carprt, prompts, logits)


def _scored(method: Callable, prompts: PromptSet, logits: Logits) -> Weights:
    labels, known = torch.tensor(prompts.prompt_class), torch.tensor(prompts.weights)
    found = prompt_scores.weights(method, logits, labels, prompts.templates, known, len(prompts.class_names))
    return tuple(found.tolist())


def prompts_of(task: Task, recipe: Ensemble, member: Member | None = None) -> PromptSet:
    """The prompts of a member, to be weighted as the recipe asks; without `member` those that all members share.

    Weights that are found from the images are not found yet: see `weighted`. UserError for weights that the recipe's
    pooling cannot use.
    """
    use = recipe.members.get(member) if member else next(m for m in recipe.members.values() if m.weight)
    name = use.prompts if use and use.prompts else task.prompts_name
    prompts = task.prompts_of(name)
    function = WEIGHTINGS.find(recipe.prompt_weights, "prompt_weights")
    if function.uses != "image" and recipe.pooling not in WEIGHTED:
        raise Mismatch(f"prompt_weights: {recipe.prompt_weights} needs pooling 'mean' or 'embedding'")
    if function.uses != "image":
        return replace(prompts, weighting=recipe.prompt_weights)
    weights = function(prompts, tuple)
    if recipe.pooling not in WEIGHTED and len(set(weights) - {0.0}) > 1:
        raise Mismatch(
            f"prompts/{name}: prompt weights need pooling 'mean' or 'embedding', not {recipe.pooling!r}; "
            "or write 'prompt_weights: uniform' in the ensemble"
        )
    return prompts if weights == prompts.weights else replace(prompts, weights=weights)


def weighted(task: Task, recipe: Ensemble, member: Member | None = None) -> PromptSet:
    """`prompts_of` with the weights found; those that members share are the members' own, averaged by their weights."""
    prompts = prompts_of(task, recipe, member)
    if not prompts.weighting:
        return prompts
    uses = {member: 1.0} if member else {name: use.weight for name, use in recipe.members.items() if use.weight > 0}
    found = [(weight / sum(uses.values()), of_member(task, name, prompts)) for name, weight in uses.items()]
    weights = (sum(share * own[p] for share, own in found) for p in range(len(prompts.prompts)))
    return replace(prompts, weights=tuple(weights))


def of_member(task: Task, member: Member, prompts: PromptSet, method: str = "") -> Weights:
    """The weights that a method (by default the one that the set asks for) gives a member's prompts."""
    method = method or prompts.weighting
    key = ("weights", task.identity, member, prompts.digest, method)
    return task.once(key, lambda: WEIGHTINGS[method](prompts, functools.partial(_logits, task, member, prompts)))


def _logits(task: Task, member: Member, prompts: PromptSet) -> Iterator[Tensor]:
    """The logits of all images of which there is a picture, shard by shard.

    Where views are kept apart each counts as an image.
    """
    seen, _ = features.of_member(task, member)
    known, _ = text.of_prompts(task, member.model, prompts)
    views = task.project.preprocess(member.preprocess).view_pooling == "confident"
    whole = damage.whole(task, [member.preprocess])
    for start, stop in task.chunks():
        rows = seen.rows("features", start, stop)[whole[start:stop]]
        for some in (rows.flatten(0, 1) if views else rows).split(CHUNK):
            yield zeroshot.prompt_logits(some, known.features, known.logit_scale)
