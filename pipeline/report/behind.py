"""What is behind the labels of an ensemble: its members, prompts and feature spaces, from the cached probabilities."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from ..chain import classes, ensemble
from ..chain.columns import Columns
from ..chain.ensemble import Blend, Rows
from ..chain.prompt_weights import weighted
from ..chain.stage import made as made_stage
from ..chain.task import Task
from ..core.artefacts import Artefact
from ..recipes import Ensemble
from ..recipes.member import Member as Name
from . import past
from .prompt_use import prompt_uses
from .result import Member, Result
from .spaces import Space, of_member


def added(task: Task, known: Result, final: Artefact, features: bool) -> Result:
    """What is `known` of some labels, with what their thresholded blend `final` and `known.made` lead to."""
    recipe = past.recipe_of(task, known.made, known.stem)
    columns, how = Columns.read(final), ensemble.pooling(recipe)
    pooled = classes.pool(task, final, columns, how)
    uses, fragile = [], None
    if recipe.blend == "prompts" and recipe.pooling != "embedding":
        uses, fragile = prompt_uses(
            task, lambda start, stop: final.rows("probs", start, stop), columns, how, known.truth
        )
    parts = past.probs_of_members(task, known.made)
    refined = classes.refine(
        task, recipe, pooled, known.stem, lambda member: made_stage(ensemble.part(task, recipe, member))
    )
    return replace(
        known,
        shares=shares_of(refined.numpy()),
        members=_members(task, recipe, known.made, parts, columns, pooled.argmax(dim=1)),
        spaces=_spaces(task, recipe, parts) if features else [],
        prompts=uses,
        fragile=fragile,
    )


def _members(
    task: Task, recipe: Ensemble, made: dict, parts: dict[Name, Artefact], columns: Columns, labels: Tensor
) -> list:
    weights = made["weights"]["found"] if "weights" in made else ensemble.members(recipe)
    known = parts.keys() == weights.keys()
    if known and recipe.blend == "classes":  # else their columns are no longer known
        known = all(parts[member].digest == ensemble.part(task, recipe, member).digest for member in weights)
    flips = flips_without_each(task, recipe, parts, columns, labels) if known else {}
    found = []
    for name, part in parts.items():
        own = classes.pool(task, part, Columns.read(part), ensemble.pooling(recipe))
        found.append(Member(name, weights[name], own.argmax(dim=1).numpy(), flips.get(name)))
    return found


def _spaces(task: Task, recipe: Ensemble, parts: dict[Name, Artefact]) -> list[Space]:
    """Of the members whose features are still there; a trained head has its base's."""
    found = []
    for name, part in parts.items():
        seen = past.cached(task, "features", name, part.made_from["features"]) if "text" in part.made_from else None
        if seen:
            by_text = recipe.pooling == "embedding"
            columns = Columns.of(weighted(task, recipe, name)) if by_text else Columns.read(part)
            found.append(of_member(task, name, seen, part.made_from["text"], columns))
    return found


def flips_without_each(
    task: Task, recipe: Ensemble, parts: Mapping[Name, Rows], columns: Columns, labels: Tensor
) -> dict[str, int]:
    """How many labels (N,), before refinement, change when a member is left out; nothing where one is alone.

    `parts` are the probabilities of each member, under `columns` when they are blended.
    """
    weights = ensemble.members(recipe)
    if len(weights) < 2:
        return {}
    flips = {}
    for left_out in weights:
        rest = {name: use for name, use in recipe.members.items() if name in weights and name != left_out}
        others = recipe.model_copy(update={"members": rest})
        pooled = classes.pool(task, Blend(task, others, parts), columns, ensemble.pooling(recipe))
        flips[left_out] = int((pooled.argmax(dim=1) != labels).sum())
    return flips


def shares_of(class_probs: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; a row that the threshold emptied has equal shares."""
    totals = class_probs.sum(axis=1, keepdims=True)
    equal = np.full_like(class_probs, 1 / class_probs.shape[1])
    return np.clip(np.divide(class_probs, totals, out=equal, where=totals > 0), 0, 1)
