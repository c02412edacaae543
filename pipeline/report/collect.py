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

from ..chain import decide, ensemble, infer, submit, threshold
from ..chain.submissions import flipped, number_of
from ..chain.task import Task
from ..core import artefacts
from ..core.artefacts import Artefact
from ..core.errors import UserError
from ..labelled import benchmark
from ..labelled.benchmark import Cell
from ..labelled.task import LabelledTask
from ..recipes import Ensemble
from .result import Change, Member, PromptUse, Result, Space

SAMPLE = 3000  # images in t-SNE and PCA
MOST_PROMPTS = 2000  # of which each is left out in turn


def of_submission(task: Task, number: int | None) -> Result:
    """Submission `number`, or the newest; its labels are those of the CSV, whatever the recipes are now."""
    submissions = submit.submissions_of(task)
    files = submissions.files()
    if not files:
        raise UserError(f"no submissions in {submissions.folder} yet: make submit, or give ENSEMBLE=name")
    path = submissions.path(number) if number else files[-1]
    number, name, made = number_of(path), path.stem.partition("-")[2], submissions.made(number_of(path))
    known = {value: label for label, value in enumerate(submit.label_values(task))}
    values = submissions.read(path)
    try:
        labels = np.array([known[values[i]] for i in submit.id_values(task)])
    except KeyError as error:
        raise UserError(
            f"{path}: does not fit the images and classes of {task.where}: {error} is missing or unknown. "
            "Give the DATA= that it was made from"
        ) from None
    line = next((line for line in submissions.log() if int(line["number"]) == number), {})
    final = _final(task, name, made) if made.get("images", {}).get("digest") == task.images_digest else None
    gone = (
        "The probabilities behind this submission are no longer in the cache, and the recipes and images of today "
        "give others: what needs them is left out."
    )
    notes = () if final else (gone,)
    return _result(task, f"Submission {number:03d} · {name}", path.stem, labels, final, made, line, notes)


def of_ensemble(task: Task, name: str, features: bool = True) -> Result:
    """An ensemble as it is now, computing what is not cached; without `features` its spaces are left out."""
    decision = decide.run(task, name)
    made = submit.provenance(task, name, decision, submit.histogram(task, decision.labels))
    labels = np.array(decision.labels)
    return _result(task, f"Ensemble {name}", name, labels, decision.probs, made, {}, (), features)


def of_cell(task: LabelledTask, cells: Sequence[Cell], cell: Cell) -> Result:
    """One cell of a benchmark, beside the `cells` that differ from it in the member alone."""
    rivals = [cell] + [one for one in cells if one is not cell and _setting(one) == _setting(cell)]
    labels = cell.predictions.top[:, 0]
    features = {
        one.member: infer.run_features(task, one.member)[0] for one in rivals
    }  # a cell may outlive its features
    probs = benchmark.class_probs(task, cell.member, cell.pooling)
    shares = [probs(features[cell.member].rows("features", *rows)).numpy() for rows in ensemble.chunks(task)]
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
            _space(
                task, member, own, infer.text_file(task, infer.split(member)[0]).stem, infer.columns_of(task, "prompts")
            )
            for member, own in features.items()
            if not task.project.is_head(member)
        ],
        prompts=_prompts_of_cell(task, cell, features[cell.member]),
    )


def _setting(cell: Cell) -> tuple[str, ...]:
    return cell.dataset, cell.split, cell.prompts, cell.pooling


def _prompts_of_cell(task: LabelledTask, cell: Cell, features: Artefact) -> list[PromptUse]:
    """Nothing where the classes' mean texts were compared, or for so many prompts that nobody would read them."""
    if cell.pooling in ("embedding", benchmark.NO_POOLING) or len(task.prompts.prompts) > MOST_PROMPTS:
        return []
    columns = infer.columns_of(task, "prompts")
    probs = benchmark.prompt_probs(task, cell.member)
    uses, _ = _prompt_uses(
        task,
        lambda start, stop: probs(features.rows("features", start, stop)),
        columns,
        cell.pooling,
        np.array(task.truth),
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
    truth, when = submit.truth(task), f", {line['time'][:16].replace('T', ' ')} UTC" if line.get("time") else ""
    known = Result(
        title=title,
        subtitle=f"Competition {task.competition_name}, {len(labels):,} images{when}",
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
    recipe = Ensemble.parse({key: value for key, value in made["recipe"].items() if key != "name"}, stem)
    columns, how = _columns(final), ensemble.pooling(recipe)
    pooled = decide.pool(task, final, columns, how)
    uses, fragile = [], None
    if recipe.blend == "prompts" and recipe.pooling != "embedding":
        uses, fragile = _prompt_uses(
            task, lambda start, stop: final.rows("probs", start, stop), columns, how, known.truth
        )
    parts, weights, members, spaces = _member_probs(task, made), ensemble.members(recipe), [], []
    flips = _flips_without_each(task, recipe, parts, columns, pooled.argmax(dim=1))
    for name, part in parts.items():
        own = _columns(part)
        said = decide.pool(task, part, own, how).argmax(dim=1).numpy()
        members.append(Member(name, weights[name], said, flips.get(name)))
        if "text" not in part.made_from:
            continue  # a trained head, whose features are its base's
        seen = _cached(task, "features", name, part.made_from["features"]) if features else None
        if recipe.pooling == "embedding":
            own = infer.columns_of(task, "prompts", ensemble.weighted(task, recipe, name))
        spaces += [_space(task, name, seen, part.made_from["text"], own)] if seen else []
    shares = _shares(decide.refine(task, recipe, pooled, stem).numpy())
    return replace(known, shares=shares, members=members, spaces=spaces, prompts=uses, fragile=fragile)


def _changes(task: Task, labels: np.ndarray, line: dict) -> list[Change]:
    """Against the newest earlier submission and the one with the best public score; `line` is the labels' own."""
    submissions, values = submit.submissions_of(task), submit.label_values(task)
    said = dict(zip(submit.id_values(task), (values[label] for label in labels), strict=True))
    lines = {int(one["number"]): one for one in submissions.log()}
    own, best = int(line["number"]) if line else None, submissions.best()
    earlier = [number_of(path) for path in submissions.files() if own is None or number_of(path) < own]
    found = []
    for number in dict.fromkeys([*earlier[-1:], *([int(best["number"])] if best else [])]):
        path = submissions.find(number)
        flips = flipped(submissions.read(path), said) if path and number != own else ""
        if flips != "":
            board = task.competition.public_board or len(labels)
            public = lines.get(number, {}).get("public", "")
            found.append(Change(number, path.stem.partition("-")[2], public, flips, len(labels), board))
    return found


def _flips_without_each(task: Task, recipe: Ensemble, parts: dict, columns: dict, labels) -> dict[str, int]:
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
        pooled = decide.pool(task, decide.Live(task, others, parts), columns, ensemble.pooling(recipe))
        flips[left_out] = int((pooled.argmax(dim=1) != labels).sum())
    return flips


def _final(task: Task, name: str, made: dict) -> Artefact | None:
    """The thresholded blend that a submission was made from."""
    if (task.project.root / "ensembles" / f"{name}.yaml").is_file():
        with contextlib.suppress(UserError):  # a recipe that is broken by now
            if threshold.artefact(task, name).digest == made["digest"]:
                return threshold.run(task, name)
    return _cached(task, "threshold", name, made["digest"])


def _member_probs(task: Task, made: dict) -> dict[str, Artefact]:
    """The members' probabilities that are still in the cache, by name, in the recipe's order."""
    found = {name: _cached(task, "probs", name, member["digest"]) for name, member in made["members"].items()}
    return {name: part for name, part in found.items() if part}


def _cached(task: Task, stage: str, name: str, digest: str) -> Artefact | None:
    """The complete artefact of a digest, if the cache has it."""
    folder = task.cache / stage / name
    for file in sorted((folder / digest).glob("*.pt"))[:1]:
        shard = artefacts.load(file, digest)
        artefact = shard and Artefact(folder, json.loads(shard["made_from"]), task.images.ids)
        if artefact and not artefact.missing(task.shard_rows):
            return artefact
    return None


def _columns(artefact: Artefact) -> dict:
    """What the prompt columns of an artefact are, as infer.columns_of wrote it."""
    return artefact.read(*artefact.shards()[0])


def _shares(class_probs: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; a row that the threshold emptied has equal shares."""
    totals = class_probs.sum(axis=1, keepdims=True)
    equal = np.full_like(class_probs, 1 / class_probs.shape[1])
    return np.clip(np.divide(class_probs, totals, out=equal, where=totals > 0), 0, 1)


def _prompt_uses(task: Task, probs_of, columns: dict, how: str, truth) -> tuple[list[PromptUse], np.ndarray]:
    """What each prompt column did, and whose label hangs on one of them (N,), in one pass over the images.

    `probs_of(start, stop)` gives the columns of some images.
    """
    from ..maths import zeroshot

    where = columns["prompt_class"], columns["prompt_weight"], len(task.class_names)
    count = len(columns["prompts"])
    largest, total, flips, gain = np.zeros(count, int), np.zeros(count), np.zeros(count, int), np.zeros(count, int)
    fragile = np.zeros(len(task.images.ids), bool)
    for start, stop in ensemble.chunks(task):
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
            int(columns["prompt_class"][c]),
            float(columns["prompt_weight"][c]),
            int(largest[c]),
            float(total[c] / len(task.images.ids)),
            int(flips[c]),
            None if truth is None else int(gain[c]),
        )
        for c, prompt in enumerate(columns["prompts"])
    ], fragile


def _space(task: Task, member: str, features: Artefact, text: str, columns: dict) -> Space:
    """Features of at most SAMPLE images, evenly spread, and of the classes' texts (`text`: the cache's digest)."""
    total = len(task.images.ids)
    rows = np.unique(np.linspace(0, total - 1, min(total, SAMPLE)).astype(int))
    parts = []
    for start, stop in ensemble.chunks(task):
        here = rows[(rows >= start) & (rows < stop)] - start
        some = features.rows("features", start, stop)[here].float()
        some = some if some.ndim == 2 else some.flatten(1, -2).mean(dim=1)  # several views or vectors: their mean
        parts.append(some.numpy())
    return Space(member, rows, np.concatenate(parts), _prototypes(task, member, text, columns))


def _prototypes(task: Task, member: str, digest: str, columns: dict) -> np.ndarray | None:
    """Mean text feature of each class, (C, D), if all its prompts are among those that were encoded."""
    from ..maths import zeroshot

    known = artefacts.load(task.project.root / "cache" / "text" / infer.split(member)[0] / f"{digest}.pt", digest)
    row = {prompt: number for number, prompt in enumerate(known["prompts"])} if known else {}
    if not row.keys() >= set(columns["prompts"]):
        return None
    text = known["features"][[row[prompt] for prompt in columns["prompts"]]]
    classes = len(task.class_names)
    return zeroshot.class_text_features(text, columns["prompt_class"], columns["prompt_weight"], classes).numpy()


def opener(task: Task) -> Callable[[int, int], Image.Image]:
    """(row, side) -> the picture of a row as the task's policy has it; UserError where there is none."""
    return lambda row, side: task.images.open(row, side, task.policy).image
