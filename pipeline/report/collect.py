"""A submission, an ensemble without one, or a cell of a benchmark -> the Result that a report is about.

Everything is found by the digests of the submission's JSON: in the cache, or computed again where the recipe still
is what it was. What cannot be found is left out, and the page says so.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..chain import classes, features, provenance, text
from ..chain.columns import Columns
from ..chain.csv_format import CsvFormat
from ..chain.ledger import number_of
from ..chain.scores import board_of
from ..chain.stage import made as made
from ..chain.suspicions import histogram
from ..chain.task import CompetitionTask, Task
from ..core.artefacts import Artefact
from ..core.errors import Mismatch, NotFound, UserError
from ..labelled import benchmark
from ..labelled.benchmark import Measurement
from ..labelled.task import DatasetTask
from . import behind, past, spaces
from .prompt_use import PromptUse, prompt_uses
from .result import Change, Member, Result

MOST_PROMPTS = 2000  # of which each is left out in turn


def of_submission(task: CompetitionTask, number: int | None) -> Result:
    """Submission `number`, or the newest; its labels are those of the CSV, whatever the recipes are now."""
    task, known = labels_of(task, number)
    of_these_images = known.made.get("images", {}).get("digest") == task.images_digest()
    final = past.last_stage(task, known.stem.partition("-")[2], known.made) if of_these_images else None
    gone = (
        "The probabilities behind this submission are no longer in the cache, and the recipes and images of today "
        "give others: what needs them is left out."
    )
    return behind.added(task, known, final, features=True) if final else replace(known, notes=(gone,))


def labels_of(task: CompetitionTask, number: int | None) -> tuple[CompetitionTask, Result]:
    """Submission `number`, or the newest, with what its files alone say, and the task with the images it is of."""
    ledger = CsvFormat(task).ledger
    files = ledger.files()
    if not files:
        raise NotFound(f"no submissions in {ledger.folder} yet: make submit, or give ENSEMBLE=name")
    path = ledger.path(number) if number else files[-1]
    number = number_of(path)
    task = past.with_its_images(task, number)
    line = next((line for line in ledger.log() if int(line["number"]) == number), {})
    labels, when = read_labels(task, path), f", {line['time'][:16].replace('T', ' ')} UTC" if line.get("time") else ""
    known = replace(
        _known(task, labels, number),
        title=f"Submission {number:03d} \u00b7 {path.stem.partition('-')[2]}",
        subtitle=f"Competition {task.name}, {len(labels):,} images{when}",
        stem=path.stem,
        made=ledger.made(number),
        board={key: line[key] for key in ("public", "private", "flipped_previous") if line.get(key, "") != ""},
    )
    return task, known


def read_labels(task: CompetitionTask, path: Path) -> np.ndarray:
    """The labels of a submission in the order of the images (N,); UserError where they are of other images."""
    form = CsvFormat(task)
    known, values = {value: label for label, value in enumerate(form.labels)}, form.ledger.read(path)
    try:
        return np.array([known[values[i]] for i in form.ids])
    except KeyError as error:
        raise Mismatch(
            f"{path}: does not fit the images and classes of {task.where}: {error} is missing or unknown. "
            "Give the DATA= that it was made from"
        ) from None


def of_ensemble(task: CompetitionTask, name: str, features: bool = True) -> Result:
    """An ensemble as it is now, computing what is not cached; without `features` its spaces are left out."""
    decision = classes.decide(task, name)
    known = replace(
        _known(task, np.array(decision.labels), None),
        title=f"Ensemble {name}",
        subtitle=f"Competition {task.name}, {len(decision.labels):,} images",
        stem=name,
        made=provenance.of_decision(task, name, decision, histogram(task, decision.labels)),
    )
    return behind.added(task, known, decision.probs, features)


def _known(task: CompetitionTask, labels: np.ndarray, number: int | None) -> Result:
    """What follows from the labels of submission `number` (None: they are of no submission) alone."""
    truth = CsvFormat(task).solution
    return Result(
        title="",
        subtitle="",
        stem="",
        ids=task.images.ids,
        open_image=opener(task),
        class_names=task.class_names,
        labels=labels,
        truth=None if truth is None else np.array(truth),
        changes=_changes(task, labels, number),
        prior=None if task.prior is None else np.array(task.prior),
    )


def _changes(task: CompetitionTask, labels: np.ndarray, own: int | None) -> list[Change]:
    """Against the newest submission before number `own`, and the one with the best public score."""
    ledger = CsvFormat(task).ledger
    best = ledger.best()
    earlier = [number_of(path) for path in ledger.files() if own is None or number_of(path) < own]
    asked = dict.fromkeys([*earlier[-1:], *([int(best["number"])] if best else [])])
    found = []
    for number in asked:
        if number != own and ledger.find(number):
            with contextlib.suppress(UserError):  # it is of other images
                found.append(change_from(task, number, labels))
    return found


def change_from(task: CompetitionTask, number: int, labels: np.ndarray) -> Change:
    """From submission `number` to the `labels` (N,); UserError where it is of other images."""
    ledger = CsvFormat(task).ledger
    path = ledger.path(number)
    line = next((line for line in ledger.log() if int(line["number"]) == number), {})
    board = board_of(task, len(labels))
    return Change(number, path.stem.partition("-")[2], line.get("public", ""), read_labels(task, path), labels, board)


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


def opener(task: Task) -> Callable[[int, int], Image.Image]:
    """(row, side) -> the picture of a row as the task's policy has it; UserError where there is none."""
    return lambda row, side: task.images.open(row, side, task.policy).image
