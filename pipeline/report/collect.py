"""A submission, an ensemble without one, or a cell of a benchmark -> the Result that a report is about.

Everything is found by the digests of the submission's JSON: in the cache, or computed again where the recipe still
is what it was. What cannot be found is left out, and the page says so.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ..chain import classes, ensemble, features, provenance, text, threshold
from ..chain.columns import Columns
from ..chain.csv_format import CsvFormat
from ..chain.ensemble import Blend
from ..chain.ledger import flipped, number_of
from ..chain.prompt_weights import weighted
from ..chain.stage import made as made_stage
from ..chain.suspicions import histogram
from ..chain.task import CompetitionTask, Task
from ..core import artefacts
from ..core.artefacts import Artefact
from ..core.errors import UserError
from ..labelled import benchmark
from ..labelled.benchmark import Measurement
from ..labelled.task import DatasetTask
from ..maths import zeroshot
from ..recipes import Ensemble
from ..recipes.member import Member as Named
from .result import Change, Member, PromptUse, Result, Space

SAMPLE = 3000  # images in t-SNE and PCA
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
    final = _final(task, name, made) if made.get("images", {}).get("digest") == task.images_digest() else None
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
            _space(task, member, own, text.digest(task, member.model), Columns.of(task.prompts))
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
    uses, _ = _prompt_uses(
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
    recipe = _recipe(task, made, stem)
    columns, how = Columns.read(final), ensemble.pooling(recipe)
    pooled = classes.pool(task, final, columns, how)
    uses, fragile = [], None
    if recipe.blend == "prompts" and recipe.pooling != "embedding":
        uses, fragile = _prompt_uses(
            task, lambda start, stop: final.rows("probs", start, stop), columns, how, known.truth
        )
    parts, weights, members, spaces = _member_probs(task, made), ensemble.members(recipe), [], []
    flips = _flips_without_each(task, recipe, parts, columns, pooled.argmax(dim=1))
    for name, part in parts.items():
        own = Columns.read(part)
        said = classes.pool(task, part, own, how).argmax(dim=1).numpy()
        members.append(Member(name, weights[name], said, flips.get(name)))
        if "text" not in part.made_from:
            continue  # a trained head, whose features are its base's
        seen = _cached(task, "features", name, part.made_from["features"]) if features else None
        if recipe.pooling == "embedding":
            own = Columns.of(weighted(task, recipe, name))
        spaces += [_space(task, name, seen, part.made_from["text"], own)] if seen else []
    refined = classes.refine(task, recipe, pooled, stem, lambda member: made_stage(ensemble.part(task, recipe, member)))
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


def _recipe(task: Task, made: dict, where: str) -> Ensemble:
    """The recipe that a submission was made by, whatever the file says today."""
    recipe = Ensemble.parse({key: value for key, value in made["recipe"].items() if key != "name"}, where)
    return recipe.model_copy(update={"members": {_member(task, name): use for name, use in recipe.members.items()}})


def _member(task: Task, name: str) -> Named:
    """A member, though its model or preprocess recipe may be gone."""
    with contextlib.suppress(UserError):
        return task.project.member(name)
    model, _, preprocess = name.partition("@")
    return Named(model, preprocess)


def _final(task: Task, name: str, made: dict) -> Artefact | None:
    """The thresholded blend that a submission was made from."""
    with contextlib.suppress(UserError):  # a recipe that is gone or broken by now
        last = threshold.stage(task, name)
        if last.digest == made["digest"]:
            return made_stage(last)
    return _cached(task, "threshold", name, made["digest"]) or _cached(task, "ensemble", name, made["digest"])


def _member_probs(task: Task, made: dict) -> dict[Named, Artefact]:
    """The members' probabilities that are still in the cache, by name, in the recipe's order."""
    found = {
        _member(task, name): _cached(task, "probs", name, member["digest"]) for name, member in made["members"].items()
    }
    return {member: part for member, part in found.items() if part}


def _cached(task: Task, stage: str, name: str, digest: str) -> Artefact | None:
    """The complete artefact of a digest, if the cache has it."""
    folder = task.cache / stage / name
    for file in sorted((folder / digest).glob("*.pt"))[:1]:
        shard = artefacts.load(file, digest)
        artefact = shard and Artefact(folder, json.loads(shard["made_from"]), task.images.ids)
        if artefact and not artefact.missing(task.shard_rows):
            return artefact
    return None


def _shares(class_probs: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; a row that the threshold emptied has equal shares."""
    totals = class_probs.sum(axis=1, keepdims=True)
    equal = np.full_like(class_probs, 1 / class_probs.shape[1])
    return np.clip(np.divide(class_probs, totals, out=equal, where=totals > 0), 0, 1)


def _prompt_uses(task: Task, probs_of, columns: Columns, how: str, truth) -> tuple[list[PromptUse], np.ndarray]:
    """What each prompt column did, and whose label hangs on one of them (N,), in one pass over the images.

    `probs_of(start, stop)` gives the columns of some images.
    """
    where = columns.prompt_class, columns.prompt_weight, len(task.class_names)
    count = len(columns.prompts)
    largest, total, flips, gain = np.zeros(count, int), np.zeros(count), np.zeros(count, int), np.zeros(count, int)
    fragile = np.zeros(len(task.images.ids), bool)
    for start, stop in task.chunks():
        probs = probs_of(start, stop)
        scores, without = zeroshot.scores_without_each(probs, *where, how)
        before = scores.argmax(dim=1)
        after = zeroshot.labels_without_each(scores, without, where[0])
        moved = (after != before[:, None]).numpy()
        fragile[start:stop], flips = moved.any(axis=1), flips + moved.sum(axis=0)
        largest += np.bincount(probs.argmax(dim=1).numpy(), minlength=count)
        total += probs.sum(dim=0).numpy()
        if truth is not None:
            right = np.array(truth[start:stop])[:, None]
            gain += (after.numpy() == right).sum(axis=0) - (before.numpy()[:, None] == right).sum(axis=0)
    return [
        PromptUse(
            prompt,
            int(columns.prompt_class[c]),
            float(columns.prompt_weight[c]),
            int(largest[c]),
            float(total[c] / len(task.images.ids)),
            int(flips[c]),
            None if truth is None else int(gain[c]),
        )
        for c, prompt in enumerate(columns.prompts)
    ], fragile


def _space(task: Task, member: str, seen: Artefact, text_digest: str, columns: Columns) -> Space:
    """Features of at most SAMPLE images, evenly spread, and of the classes' texts (`text_digest`: of their cache)."""
    total = len(task.images.ids)
    rows = np.unique(np.linspace(0, total - 1, min(total, SAMPLE)).astype(int))
    parts = []
    for start, stop in task.chunks():
        here = rows[(rows >= start) & (rows < stop)] - start
        some = seen.rows("features", start, stop)[here].float()
        some = some if some.ndim == 2 else some.flatten(1, -2).mean(dim=1)  # several views or vectors: their mean
        parts.append(some.numpy())
    return Space(member, rows, np.concatenate(parts), _prototypes(task, member, text_digest, columns))


def _prototypes(task: Task, member: Named, digest: str, columns: Columns) -> np.ndarray | None:
    """Mean text feature of each class, (C, D), if all its prompts are among those that were encoded."""
    known = artefacts.load(task.project.root / "cache" / "text" / member.model / f"{digest}.pt", digest)
    row = {prompt: number for number, prompt in enumerate(known["prompts"])} if known else {}
    if not row.keys() >= set(columns.prompts):
        return None
    texts = known["features"][[row[prompt] for prompt in columns.prompts]]
    return columns.class_texts(texts).numpy()


def opener(task: Task) -> Callable[[int, int], Image.Image]:
    """(row, side) -> the picture of a row as the task's policy has it; UserError where there is none."""
    return lambda row, side: task.images.open(row, side, task.policy).image
