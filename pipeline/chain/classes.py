"""From a recipe to class probabilities: thresholded blend -> pooled -> refined. Whoever needs labels asks here."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.console import say, warn
from ..core.errors import Damaged, Mismatch, UserError, prefixed
from ..core.room import room
from ..maths import zeroshot
from ..maths.refine import STEPS, Evidence
from ..maths.refine.guards import Outcome, guarded, unguarded
from ..recipes import Ensemble
from ..recipes.member import Member
from . import damage, ensemble, features, rules, text, threshold
from .columns import Columns
from .ensemble import Rows
from .prompt_weights import weighted
from .stage import Stage, made, make
from .task import Task

MIX_SHOWN = 10  # classes whose count changed, on the terminal
Parts = Callable[[Member], Rows]  # the probabilities of each member of a recipe, computed
Known = tuple[Tensor, set[tuple[int, int]]]  # pooled probabilities (N, C), and of which rows start..stop they are there


@dataclass(frozen=True)
class Decision:
    """What a recipe says of N images: `pooled` (N, C) float32, and `refined`, which is the same without steps."""

    probs: Rows  # the thresholded blend
    pooled: Tensor
    refined: Tensor
    outcomes: tuple[Outcome, ...] = ()  # of the steps, in their order

    @property
    def labels(self) -> list[int]:
        return self.refined.argmax(dim=1).tolist()


def decide(task: Task, name: str) -> Decision:
    """Decide by a recipe, computing what is not cached. UserError for a recipe that the task's rules forbid."""
    rules.check(task, name)
    recipe, where = task.project.ensemble(name), str(task.project.ensemble_path(name))
    steps(task, recipe, where, len(task.images.ids))  # mistakes are told before anything is computed
    probs = threshold.stage(task, name)
    known = _pooled_while_made(task, probs, ensemble.pooling(recipe))
    parts = lambda member: made(ensemble.part(task, recipe, member))  # noqa: E731
    decision = conclude(task, recipe, where, probs, Columns.read(probs), parts, known)
    for outcome in decision.outcomes:
        _say(task, name, outcome)
    return decision


def conclude(
    task: Task, recipe: Ensemble, where: str, probs: Rows, columns: Columns, parts: Parts, known: Known | None = None
) -> Decision:
    """What follows from the thresholded blend `probs` (N, P), which lies in files or in memory, under its `columns`.

    `known` is what some of it is when pooled.
    """
    pooled_NC = pool(task, probs, columns, ensemble.pooling(recipe), known)
    outcomes: list[Outcome] = []
    refined_NC = refine(task, recipe, pooled_NC, where, parts, outcomes.append)
    return Decision(probs, fall_back(task, pooled_NC, with_picture(task, recipe)), refined_NC, tuple(outcomes))


def _say(task: Task, name: str, outcome: Outcome) -> None:
    """One line per step: kept, or loudly not."""
    moves = zip(task.class_names, outcome.before, outcome.after, strict=True)
    moved = sorted((move for move in moves if move[1] != move[2]), key=lambda move: -abs(move[2] - move[1]))
    mix = ", ".join(f"{class_name} {before} -> {after}" for class_name, before, after in moved[:MIX_SHOWN])
    mix += f", and {len(moved) - MIX_SHOWN} more classes" if len(moved) > MIX_SHOWN else ""
    did = f"{outcome.changed} labels changed{f'; {mix}' if mix else ''}"
    did += f"; {outcome.withheld} changes held back, as similar images object" if outcome.withheld else ""
    if outcome.refused:
        warn(
            f"REFINEMENT NOT KEPT, the labels are those without it. {name}: {outcome.step}: {outcome.refused} "
            f"({did} by it). 'guards: false' in the ensemble keeps it all the same"
        )
    else:
        say("refine", name, f"{outcome.step}: {did}")


def _pooled_while_made(task: Task, probs: Stage, how: str) -> Known:
    """Make the thresholded blend; what this process computes of it is pooled while it is in memory."""
    pooled_NC, done = _pooled_room(task), set()
    columns = None

    def keep(start: int, stop: int) -> None:
        nonlocal columns
        columns = columns or Columns.read(probs, start)
        pooled_NC[start:stop] = pooled(task, probs, columns, how, start, stop)
        done.add((start, stop))

    make(probs, keep)
    return pooled_NC, done


def _pooled_room(task: Task) -> Tensor:
    """For pooled probabilities, in one piece: those of a shard alone would lie where the next shard needs room."""
    return room((len(task.images.ids), len(task.class_names)), torch.float32, task.cache)


def pool(task: Task, probs: Rows, columns: Columns, how: str, known: Known | None = None) -> Tensor:
    """Pooled probabilities (N, C) float32, chunk by chunk; UserError when any up the chain is not finite."""
    pooled_NC, done = known or (_pooled_room(task), set())
    for start, stop in task.chunks():
        if (start, stop) not in done:
            pooled_NC[start:stop] = pooled(task, probs, columns, how, start, stop)
    return pooled_NC


def pooled(task: Task, probs: Rows, columns: Columns, how: str, start: int, stop: int) -> Tensor:
    """Those of images start..stop."""
    rows_NP = probs.rows("probs", start, stop)
    if rows_NP.shape != (stop - start, len(columns.prompts)):
        raise Damaged(
            f"{probs.path}: probabilities {tuple(rows_NP.shape)} of {stop - start} images; remove that "
            "folder, nothing is written"
        )
    if not zeroshot.all_finite(rows_NP):
        raise Damaged(f"{probs.path}: probabilities are not finite; nothing is written")
    pooled_NC = columns.pool(rows_NP, how)
    if not zeroshot.all_finite(pooled_NC):
        raise UserError(
            f"prompts/{task.prompts_name}: pooled with these weights the probabilities are not finite; give "
            "weights nearer to 1, only ratios matter. Nothing is written"
        )
    return pooled_NC


def steps(task: Task, recipe: Ensemble, where: str, images: int) -> list[tuple[Callable, dict]]:
    """The recipe's refinement steps with their arguments; UserError, naming `where` it is, for those that do not do.

    Unknown ones, such as do not fit the classes, and such as compare all images with each other, where there are too
    many of them.
    """
    found = [STEPS.bind(named, f"{where}: refine.{number}") for number, named in enumerate(recipe.refine)]
    for number, (step, arguments) in enumerate(found):
        check, most = getattr(step, "check", None), getattr(step, "most", None)
        if check:
            with prefixed(f"{where}: refine.{number}"):
                check(task.class_names, **arguments)
        if most and images > most:
            raise UserError(
                f"{where}: refine.{number}: {step.__name__} makes a graph of all images, that is {images}, and takes "
                f"{most} at most. Write 'recommended' or 'discriminant': they need sums alone"
            )
    return found


def refine(
    task: Task,
    recipe: Ensemble,
    probs_NC: Tensor,
    where: str,
    parts: Parts,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Tensor:
    """Class probabilities (N, C) after the recipe's steps, in their order, each as its guards allow.

    Images without a picture take no part in the steps, and get the shares of the labels of the others. `tell` hears the
    outcome of each step.
    """
    whole_N = with_picture(task, recipe)
    todo = steps(task, recipe, where, int(whole_N.sum()))
    if todo and whole_N.any():
        seen, refined_NC = evidence(task, recipe, parts, whole_N), probs_NC if whole_N.all() else probs_NC[whole_N]
        run = guarded if recipe.guards else unguarded
        for function, arguments in todo:
            step = functools.partial(function, refined_NC, seen, **arguments)
            refined_NC, outcome = run(function.__name__, step, refined_NC, seen)
            tell(outcome)
        probs_NC = refined_NC if whole_N.all() else probs_NC.index_put((whole_N,), refined_NC)
    return fall_back(task, probs_NC, whole_N)


def with_picture(task: Task, recipe: Ensemble) -> Tensor:
    """Which images there is a picture of, bool (N,): all, unless the competition lets damaged ones fall back."""
    return damage.whole(task, ensemble.preprocess_recipes(recipe))


def fall_back(task: Task, probs_NC: Tensor, whole_N: Tensor) -> Tensor:
    """`probs_NC` with what is `likely` in the rows that are of no picture."""
    if whole_N.all():
        return probs_NC
    return probs_NC.index_put((~whole_N,), likely(task, probs_NC[whole_N].argmax(dim=1)).to(probs_NC.dtype))


def likely(task: Task, label_N: Tensor) -> Tensor:
    """The share of each predicted label (C,), for images without a picture; `label_N` are those of the others.

    It is a statistic of the test images: where the rules forbid it, it is the stated prior, or all the same.
    """
    classes = len(task.class_names)
    if task.rules.test_set and len(label_N):
        counts_C = label_N.bincount(minlength=classes).float()
        return counts_C / counts_C.sum()
    return torch.full((classes,), 1 / classes) if task.prior is None else torch.tensor(task.prior)


def evidence(task: Task, recipe: Ensemble, parts: Parts, whole_N: Tensor | None = None) -> Evidence:
    """What refinement steps may look at: features of members with a text tower and of the witness, classes of all.

    With `whole_N` of some images. Classes of the members are found when a guard asks for them.
    """
    weights = ensemble.members(recipe)
    with_text = [member for member in weights if not member.is_head]
    if not with_text:
        raise Mismatch(
            "refine: its steps look at a member with a text tower, and all members are trained heads; add "
            "their base as a member"
        )
    if whole_N is None:
        whole_N = torch.ones(len(task.images.ids), dtype=torch.bool)
    total = sum(weights[member] for member in with_text)
    roots = {member: math.sqrt(weights[member] / total) for member in with_text}
    texts = [_class_texts(task, recipe, member) * root for member, root in roots.items()]

    def probs(member: Member) -> Tensor:
        return member_probs(task, recipe, member, parts(member))[whole_N]

    return Evidence(
        image_features_ND=_vectors(task, roots, whole_N),
        text_features_CD=torch.cat(texts, dim=1),
        member_probs=Lazily(tuple(functools.partial(probs, member) for member in weights)),
        class_names=tuple(task.class_names),
        widths=tuple(text_CD.shape[1] for text_CD in texts),
        witness_ND=_vectors(task, {recipe.witness: 1.0}, whole_N) if recipe.witness else None,
    )


@dataclass(frozen=True)
class Lazily(Sequence[Tensor]):
    """Tensors that are found whenever they are asked for, and not kept."""

    find: tuple[Callable[[], Tensor], ...]

    def __len__(self) -> int:
        return len(self.find)

    def __getitem__(self, number):
        return self.find[number]()


def _class_texts(task: Task, recipe: Ensemble, member: Member) -> Tensor:
    """The mean text features of the classes (C, D) under a member's prompts."""
    prompts = weighted(task, recipe, member)
    known, _ = text.of_prompts(task, member.model, prompts)
    return Columns.of(prompts).class_texts(known.features)


def member_probs(task: Task, recipe: Ensemble, member: Member, probs: Rows) -> Tensor:
    """Class probabilities (N, C) of a member alone, rows that sum to 1."""
    columns = ensemble.member_columns(task, recipe, member)
    pooled_NC = pool(task, probs, columns, ensemble.pooling(recipe))
    return pooled_NC / pooled_NC.sum(dim=1, keepdim=True)


def _vectors(task: Task, roots: Mapping[Member, float], whole_N: Tensor) -> Tensor:
    """One vector per image (N, D), float16: of several (views, or a model's queries) their mean.

    Those of several members side by side, each times its root. They lie in a file where memory has no room for them.
    """
    seen = [(features.of_member(task, member)[0], root) for member, root in roots.items()]
    found, end = None, 0
    for start, stop in task.chunks():
        rows = [features.one_vector(member.rows("features", start, stop)) * root for member, root in seen]
        rows_BD = torch.cat(rows, dim=1)[whole_N[start:stop]]
        if found is None:
            found = room((int(whole_N.sum()), rows_BD.shape[1]), rows_BD.dtype, task.cache)
        found[end : end + len(rows_BD)] = rows_BD
        end += len(rows_BD)
    assert found is not None, "a task has images"
    return found
