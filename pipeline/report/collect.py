"""A submission, an ensemble without one, or a cell of a benchmark -> the Result that a report is about.

Everything is found by the digests of the submission's JSON: in the cache, or computed again where the recipe still
is what it was. What cannot be found is left out, and the page says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ..chain import classes, ensemble, features, provenance, text
from ..chain.columns import Columns
from ..chain.csv_format import CsvFormat
from ..chain.ensemble import Blend
from ..chain.ledger import flipped, number_of
from ..chain.prompt_weights import weighted
from ..chain.stage import made as made
from ..chain.suspicions import histogram
from ..chain.task import CompetitionTask, Task
from ..core.artefacts import Artefact
from ..core.errors import UserError
from ..labelled import benchmark
from ..labelled.benchmark import Measurement
from ..labelled.task import DatasetTask
from ..recipes import Ensemble
from . import past, spaces
from .prompt_use import PromptUse, prompt_uses
from .result import Change, Member, Result

MOST_PROMPTS = 2000  # of which each is left out in turn


def of_submission(task: CompetitionTask, number: int | None) -> Result:
    """Submission `number`, or the newest; its labels are those of the CSV, whatever the recipes are now."""
    form = CsvFormat(task)
    submissions = form.ledger
    files = submissions.files()
    if not files:
        raise UserError(f"no submissions in {submissions.folder} yet: make submit, or give ENSEMBLE=name")
    path = submissions.path(number) if number else files[-1]
    number, name, made = number_of(path), path.stem.partition("-")[2], submissions.made(number_of(path))
    known = {value: label for label, value in enumerate(form.labels)}
    values = submissions.read(path)
    try:
        labels = np.array([known[values[i]] for i in form.ids])
    except KeyError as error:
        raise UserError(
            f"{path}: does not fit the images and classes of {task.where}: {error} is missing or unknown. "
            "Give the DATA= that it was made from"
        ) from None
    line = next((line for line in submissions.log() if int(line["number"]) == number), {})
    final = past.last_stage(task, name, made) if made.get("images", {}).get("digest") == task.images_digest() else None
    gone = (
        "The probabilities behind this submission are no longer in the cache, and the recipes and images of today "
        "give others: what needs them is left out."
    )
    notes = () if final else (gone,)
    return _result(task, f"Submission {number:03d} · {name}", path.stem, labels, final, made, line, notes)


def of_ensemble(task: CompetitionTask, name: str, features: bool = True) -> Result:
    """An ensemble as it is now, computing what is not cached; without `features` its spaces are left out."""
    decision = classes.decide(task, name)
    made = provenance.of_decision(task, name, decision, histogram(task, decision.labels))
    labels = np.array(decision.labels)
    return _result(task, f"Ensemble {name}", name, labels, decision.probs, made, {}, (), features)


def of_cell(task: DatasetTask, cells: Sequence[Measurement], cell: Measurement) -> Result:
    """One cell of a benchmark, beside the `cells` that differ from it in the member alone."""
    rivals = [cell] + [one for one in cells if one is not cell and _setting(one) == _setting(cell)]
    labels = cell.predictions.top[:, 0]
    seen = {one.member: features.of_member(task, one.member)[0] for one in rivals}  # a cell may outlive its features
    probs = benchmark.class_probs(task, cell.member, cell.pooling)
    shares = [probs(seen[cell.member].rows("features", *rows)).numpy() for rows in task.chunks()]
    return Result(
        title=f"{cell.dataset}, {cell.split}",
        subtitle=f"{cell.member}, {cell.prompts} prompts, {cell.pooling}",
        stem=cell.dataset,
        ids=task.images.ids,
        open_image=opener(task),
        class_names=task.class_names,
        labels=labels,
        truth=np.array(task.truth),
        shares=np.concatenate(shares),
        subject="best cell",
        members=[Member(one.member, None, one.predictions.top[:, 0]) for one in rivals] if len(rivals) > 1 else [],
        spaces=[
            spaces.of_member(task, member, own, text.digest(task, member.model), Columns.of(task.prompts))
            for member, own in seen.items()
            if not member.is_head
        ],
        prompts=_prompts_of_cell(task, cell, seen[cell.member]),
    )


def _setting(cell: Measurement) -> tuple[str, ...]:
    return cell.dataset, cell.split, cell.prompts, cell.pooling


def _prompts_of_cell(task: DatasetTask, cell: Measurement, seen: Artefact) -> list[PromptUse]:
    """Nothing where the classes' mean texts were compared, or for so many prompts that nobody would read them."""
    if cell.pooling in ("embedding", benchmark.NO_POOLING) or len(task.prompts.prompts) > MOST_PROMPTS:
        return []
    columns = Columns.of(task.prompts)
    probs = benchmark.prompt_probs(task, cell.member)
    uses, _ = prompt_uses(
        task, lambda start, stop: probs(seen.rows("features", start, stop)), columns, cell.pooling, np.array(task.truth)
    )
    return uses


def _result(
    task: Task,
    title: str,
    stem: str,
    labels,
    final: Artefact | None,
    made: dict,
    line: dict,
    notes,
    features: bool = True,
) -> Result:
    truth, when = CsvFormat(task).solution, f", {line['time'][:16].replace('T', ' ')} UTC" if line.get("time") else ""
    known = Result(
        title=title,
        subtitle=f"Competition {task.name}, {len(labels):,} images{when}",
        stem=stem,
        ids=task.images.ids,
        open_image=opener(task),
        class_names=task.class_names,
        labels=labels,
        truth=None if truth is None else np.array(truth),
        made=made,
        notes=notes,
        changes=_changes(task, labels, line),
        prior=None if task.prior is None else np.array(task.prior),
        board={key: line[key] for key in ("public", "private", "flipped_previous") if line.get(key, "") != ""},
    )
    if final is None:
        return known
    recipe = past.recipe_of(task, made, stem)
    columns, how = Columns.read(final), ensemble.pooling(recipe)
    pooled = classes.pool(task, final, columns, how)
    uses, fragile = [], None
    if recipe.blend == "prompts" and recipe.pooling != "embedding":
        uses, fragile = prompt_uses(
            task, lambda start, stop: final.rows("probs", start, stop), columns, how, known.truth
        )
    parts, weights, members, spaces = past.probs_of_members(task, made), ensemble.members(recipe), [], []
    flips = _flips_without_each(task, recipe, parts, columns, pooled.argmax(dim=1))
    for name, part in parts.items():
        own = Columns.read(part)
        said = classes.pool(task, part, own, how).argmax(dim=1).numpy()
        members.append(Member(name, weights[name], said, flips.get(name)))
        if "text" not in part.made_from:
            continue  # a trained head, whose features are its base's
        seen = past.cached(task, "features", name, part.made_from["features"]) if features else None
        if recipe.pooling == "embedding":
            own = Columns.of(weighted(task, recipe, name))
        spaces += [spaces.of_member(task, name, seen, part.made_from["text"], own)] if seen else []
    refined = classes.refine(task, recipe, pooled, stem, lambda member: made(ensemble.part(task, recipe, member)))
    shares = _shares(refined.numpy())
    return replace(known, shares=shares, members=members, spaces=spaces, prompts=uses, fragile=fragile)


def _changes(task: Task, labels: np.ndarray, line: dict) -> list[Change]:
    """Against the newest earlier submission and the one with the best public score; `line` is the labels' own."""
    form = CsvFormat(task)
    submissions, values = form.ledger, form.labels
    said = dict(zip(form.ids, (values[label] for label in labels), strict=True))
    lines = {int(one["number"]): one for one in submissions.log()}
    own, best = int(line["number"]) if line else None, submissions.best()
    earlier = [number_of(path) for path in submissions.files() if own is None or number_of(path) < own]
    found = []
    for number in dict.fromkeys([*earlier[-1:], *([int(best["number"])] if best else [])]):
        path = submissions.find(number)
        flips = flipped(submissions.read(path), said) if path and number != own else ""
        if flips != "":
            board = task.recipe.public_board or len(labels)
            public = lines.get(number, {}).get("public", "")
            found.append(Change(number, path.stem.partition("-")[2], public, flips, len(labels), board))
    return found


def _flips_without_each(task: Task, recipe: Ensemble, parts: dict, columns: Columns, labels) -> dict[str, int]:
    """How many labels, before refinement, change when a member is left out; nothing where one is alone or gone."""
    weights = ensemble.members(recipe)
    if len(weights) < 2 or parts.keys() != weights.keys():
        return {}
    if recipe.blend == "classes" and any(parts[m].digest != ensemble.part(task, recipe, m).digest for m in weights):
        return {}  # their columns are no longer known
    flips = {}
    for left_out in weights:
        rest = {name: use for name, use in recipe.members.items() if name in weights and name != left_out}
        others = recipe.model_copy(update={"members": rest})
        pooled = classes.pool(task, Blend(task, others, parts), columns, ensemble.pooling(recipe))
        flips[left_out] = int((pooled.argmax(dim=1) != labels).sum())
    return flips


def _shares(class_probs: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; a row that the threshold emptied has equal shares."""
    totals = class_probs.sum(axis=1, keepdims=True)
    equal = np.full_like(class_probs, 1 / class_probs.shape[1])
    return np.clip(np.divide(class_probs, totals, out=equal, where=totals > 0), 0, 1)


def opener(task: Task) -> Callable[[int, int], Image.Image]:
    """(row, side) -> the picture of a row as the task's policy has it; UserError where there is none."""
    return lambda row, side: task.images.open(row, side, task.policy).image
