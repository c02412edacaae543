"""From a recipe to class probabilities: thresholded blend -> pooled -> refined. Whoever needs labels asks here."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from ..core.artefacts import Artefact
from ..core.console import say, warn
from ..core.errors import UserError
from ..core.registry import bind, find
from ..recipes import Ensemble
from . import ensemble, infer, problems, rules, threshold
from .task import Task

MIX_SHOWN = 10  # classes whose count changed, on the terminal


@dataclass(frozen=True)
class Decision:
    """What a recipe says of N images: `pooled` (N, C) float32, and `refined`, which is the same without steps."""

    probs: Artefact  # the thresholded blend
    pooled: object
    refined: object
    outcomes: tuple = ()  # of the steps, in their order: refine.guards.Outcome

    @property
    def labels(self) -> list[int]:
        return self.refined.argmax(dim=1).tolist()


def run(task: Task, name: str) -> Decision:
    """Decide by a recipe, computing what is not cached. UserError for a recipe that the task's rules forbid."""
    rules.check(task, name)
    recipe, where = task.project.ensemble(name), f"ensembles/{name}.yaml"
    steps(recipe, where)  # mistakes are told before anything is computed
    probs = threshold.run(task, name)
    pooled = pool(task, probs, ensemble.blended_columns(task, recipe), ensemble.pooling(recipe))
    outcomes: list = []
    refined = refine(task, recipe, pooled, where, tell=outcomes.append)
    for outcome in outcomes:
        _say(task, name, outcome)
    return Decision(probs, fall_back(pooled, with_picture(task, recipe)), refined, tuple(outcomes))


def _say(task: Task, name: str, outcome) -> None:
    """One line per step: kept, or loudly not."""
    moves = zip(task.class_names, outcome.before, outcome.after, strict=True)
    moved = sorted((move for move in moves if move[1] != move[2]), key=lambda move: -abs(move[2] - move[1]))
    mix = ", ".join(f"{class_name} {before} -> {after}" for class_name, before, after in moved[:MIX_SHOWN])
    mix += f", and {len(moved) - MIX_SHOWN} more classes" if len(moved) > MIX_SHOWN else ""
    did = f"{outcome.changed} labels changed{f'; {mix}' if mix else ''}"
    if outcome.refused:
        warn(
            f"REFINEMENT NOT KEPT, the labels are those without it. {name}: {outcome.step}: {outcome.refused} "
            f"({did} by it). 'guards: false' in the ensemble keeps it all the same"
        )
    else:
        say("refine", name, f"{outcome.step}: {did}")


@dataclass(frozen=True)
class Live:
    """A recipe's thresholded blend that is in no file: made row by row from its members' probabilities.

    `parts` are artefacts, or have the `rows` of one, for each member.
    """

    task: Task
    recipe: Ensemble
    parts: dict
    path: str = "the blend"

    @cached_property
    def temperatures(self) -> dict[str, float]:
        return ensemble.temperatures(self.task, self.recipe, self.parts)

    def rows(self, _: str, start: int, stop: int):
        """As Artefact.rows."""
        from ..maths import zeroshot

        blended = ensemble.blended(self.task, self.recipe, self.parts, self.temperatures, start, stop)
        return zeroshot.threshold(blended, self.recipe.threshold) if self.recipe.threshold else blended


def pool(task: Task, probs: Artefact | Live, columns: dict, how: str):
    """Pooled probabilities (N, C) float32, shard by shard; UserError when any up the chain is not finite.

    `columns` are those of the artefact, as infer.columns_of says it.
    """
    import torch

    from ..maths import zeroshot

    classes = len(task.class_names)
    pooled_NC = torch.empty(len(task.images.ids), classes)
    for start, stop in ensemble.chunks(task):
        rows_NP = probs.rows("probs", start, stop)
        if rows_NP.shape != (stop - start, len(columns["prompt_class"])):
            raise UserError(
                f"{probs.path}: probabilities {tuple(rows_NP.shape)} of {stop - start} images; remove that "
                "folder, nothing is written"
            )
        if not rows_NP.isfinite().all():
            raise UserError(f"{probs.path}: probabilities are not finite; nothing is written")
        where = columns["prompt_class"], columns["prompt_weight"]
        pooled_NC[start:stop] = zeroshot.pool(rows_NP, *where, classes, how)
    if not pooled_NC.isfinite().all():
        raise UserError(
            f"prompts/{task.prompts_set}: pooled with these weights the probabilities are not finite; give "
            "weights nearer to 1, only ratios matter. Nothing is written"
        )
    return pooled_NC


def steps(recipe: Ensemble, where: str) -> list[tuple[Callable, dict]]:
    """The recipe's refinement steps with their arguments; UserError, naming `where` it is, for unknown ones."""
    from ..maths.refine import STEPS

    found = []
    for number, (name, argument) in enumerate(recipe.refine):
        at = f"{where}: refine.{number}"
        function = find(STEPS, "step", name, at)
        found.append((function, bind(function, 2, name, argument, at)))
    return found


def refine(
    task: Task,
    recipe: Ensemble,
    probs_NC,
    where: str,
    part_of: Callable = ensemble.run_part,
    tell: Callable[[object], None] = lambda outcome: None,
):
    """Class probabilities (N, C) after the recipe's steps, in their order, each as its guards allow.

    Images without a picture take no part in the steps, and get the shares of the labels of the others. `part_of` as in
    `evidence`; `tell` hears the outcome of each step.
    """
    from ..maths.refine.guards import guarded, unguarded

    todo, whole = steps(recipe, where), with_picture(task, recipe)
    if todo and whole.any():
        seen, refined = evidence(task, recipe, part_of), probs_NC[whole]
        seen = replace(
            seen,
            image_features_ND=seen.image_features_ND[whole],
            member_probs=tuple(probs[whole] for probs in seen.member_probs),
        )
        run = guarded if recipe.guards else unguarded
        for function, arguments in todo:
            refined, outcome = run(
                function.__name__, functools.partial(function, refined, seen, **arguments), refined, seen
            )
            tell(outcome)
        probs_NC = probs_NC.index_put((whole,), refined)
    return fall_back(probs_NC, whole)


def with_picture(task: Task, recipe: Ensemble):
    """Which images there is a picture of, bool (N,): all, unless the competition lets damaged ones fall back."""
    import torch

    whole_N = torch.ones(len(task.images.ids), dtype=torch.bool)
    whole_N[problems.without_picture(task, ensemble.preprocess_recipes(recipe))] = False
    return whole_N


def fall_back(probs_NC, whole_N):
    """`probs_NC` with the share of each predicted label in the rows that are of no picture."""
    if whole_N.all():
        return probs_NC
    counts_C = probs_NC[whole_N].argmax(dim=1).bincount(minlength=probs_NC.shape[1]).float()
    shares_C = counts_C / counts_C.sum() if whole_N.any() else counts_C + 1 / len(counts_C)
    return probs_NC.index_put((~whole_N,), shares_C)


def evidence(task: Task, recipe: Ensemble, part_of: Callable = ensemble.run_part):
    """What refinement steps may look at: features of the members with a text tower, class probabilities of all.

    `part_of(task, recipe, member)` has the rows of a member's probabilities.
    """
    import torch

    from ..maths.refine import Evidence

    weights = ensemble.members(recipe)
    with_text = [member for member in weights if not task.project.is_head(member)]
    if not with_text:
        raise UserError(
            "refine: its steps look at a member with a text tower, and all members are trained heads; add "
            "their base as a member"
        )
    total = sum(weights[member] for member in with_text)
    roots = {member: math.sqrt(weights[member] / total) for member in with_text}
    images = [_features(task, member) * root for member, root in roots.items()]
    return Evidence(
        image_features_ND=torch.cat(images, dim=1),
        text_features_CD=torch.cat([_class_texts(task, recipe, m) * root for m, root in roots.items()], dim=1),
        member_probs=tuple(member_probs(task, recipe, member, part_of) for member in weights),
        class_names=tuple(task.class_names),
        widths=tuple(features.shape[1] for features in images),
    )


def _class_texts(task: Task, recipe: Ensemble, member: str):
    """The mean text features of the classes (C, D) under a member's prompts."""
    from ..maths import zeroshot

    prompts = ensemble.weighted(task, recipe, member)
    text, _ = infer.run_text(task, infer.split(member)[0], prompts.prompts)
    columns = infer.columns_of(task, "prompts", prompts)
    classes = columns["prompt_class"], columns["prompt_weight"], len(task.class_names)
    return zeroshot.class_text_features(text.features, *classes)


def member_probs(task: Task, recipe: Ensemble, member: str, part_of: Callable = ensemble.run_part):
    """Class probabilities (N, C) of a member alone, rows that sum to 1."""
    columns = ensemble.member_columns(task, recipe, member)
    pooled_NC = pool(task, part_of(task, recipe, member), columns, ensemble.pooling(recipe))
    return pooled_NC / pooled_NC.sum(dim=1, keepdim=True)


def _features(task: Task, member: str):
    """One vector per image (N, D), float16: of several (views, or a model's queries) their mean."""
    import torch

    from ..maths import zeroshot

    features, _ = infer.run_features(task, member)
    parts = []
    for start, stop in ensemble.chunks(task):
        rows = features.rows("features", start, stop)
        parts.append(rows if rows.ndim == 2 else zeroshot.normalise(rows.float().flatten(1, -2).mean(dim=1)).half())
    return torch.cat(parts)
