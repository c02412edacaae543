"""Verb benchmark: models x prompts x poolings on labelled data sets, each cell measured once and kept."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..chain import damage, features, probs, text
from ..chain.columns import Columns, Kind
from ..chain.probs import OfFeatures
from ..chain.task import Runtime
from ..core import artefacts
from ..core.console import rank, say
from ..core.digests import FORMAT, digest_of
from ..core.errors import Changed, Mismatch
from ..core.files import atomic_file
from ..core.tables import csv_lines, markdown, table
from ..maths import metrics
from ..maths.metrics import Interval, Predictions
from ..recipes import Benchmark, Project
from ..recipes.member import Member
from .task import DatasetTask

NO_POOLING = "head"  # where a table names the pooling
CHUNK = 1024  # images pooled at a time
PREDICTED = ("truth", "top", "confidence")  # what is kept of predictions
SHOWN = {"acc1": "acc1", "acc5": "acc5", "macro_f1": "macro F1", "mean_per_class_recall": "recall", "ece": "ECE"}


@dataclass(frozen=True)
class Measurement:
    """One measurement: a member's predictions for one split of a data set, and how good they are."""

    dataset: str
    split: str
    member: str
    prompts: str
    pooling: str
    images: int
    class_names: tuple[str, ...]
    metrics: dict[str, Interval]
    file: Path

    @cached_property
    def predictions(self) -> Predictions:
        """What was predicted, row by row as in the data set's split."""
        stored = artefacts.load(self.file)
        if stored is None:
            raise Changed(f"{self.file} was damaged or removed while it was in use; run the same command again")
        return Predictions(*(stored[key].numpy() for key in PREDICTED), len(self.class_names))


def measure(runtime: Runtime, recipe: Benchmark, name: str) -> list[Measurement]:
    """Measure what is not yet measured; write and print the tables of all cells.

    Of the processes a launcher starts, all encode images and the first goes on alone (the others return nothing).
    """
    tasks = [
        DatasetTask.of(runtime, dataset, asked_split=recipe.split, asked_prompts=prompts)
        for dataset, prompts in _pairs(runtime.project, recipe)
    ]
    members = [runtime.project.member(model) for model in recipe.models]
    for one in tasks:  # mistakes in recipes and data are told before hours of inference
        _ = one.truth, [_check(one, member) for member in members]
    if rank():
        for one, member in itertools.product(tasks, members):
            features.of_member(one, member)
        return []
    cells = [
        cell(one, member, pooling, recipe.resamples)
        for one in tasks
        for member in members
        for pooling in _poolings(runtime.project, recipe, one, member)
    ]
    for one in {one.name: one for one in tasks}.values():
        damage.report(one, [member.preprocess for member in members])
    folder = runtime.project.root / "cache" / "benchmarks"
    for suffix, content in (("csv", to_csv(cells)), ("md", to_markdown(cells))):
        with atomic_file(folder / f"{name}.{suffix}") as temporary:
            temporary.write_bytes(content.encode())
    print(table(HEADER, rows(cells)))
    say("benchmark", name, f"{len(cells)} measurements: {folder / name}.csv, .md")
    return cells


def _pairs(project: Project, recipe: Benchmark) -> list[tuple[str, str]]:
    """(data set, prompt set), each once."""
    pairs = [
        (dataset, project.dataset(dataset).prompts if prompts == "own" else prompts)
        for dataset in recipe.datasets
        for prompts in recipe.prompts
    ]
    return list(dict.fromkeys(pairs))


def _check(task: DatasetTask, member: Member) -> None:
    """UserError for what a member cannot be measured with: no text tower, prompts that are wrong, other classes."""
    if member.is_head:
        probs.head_columns(task, member)
    else:
        _ = task.prompts, text.made_from(task, member.model)


def _poolings(project: Project, recipe: Benchmark, task: DatasetTask, member: Member) -> tuple[str, ...]:
    """The recipe's; for a trained head, which knows neither prompts nor pooling, one of each data set."""
    if not member.is_head:
        return recipe.poolings
    first = next(prompts for dataset, prompts in _pairs(project, recipe) if dataset == task.name)
    return (NO_POOLING,) if task.prompts_name == first else ()


def cell(task: DatasetTask, member: Member, pooling: str, resamples: int = 1000) -> Measurement:
    """One cell, from the cache if it is there."""
    made_from = _made_from(task, member, pooling, resamples)
    file = task.cache / "cells" / member / f"{digest_of(made_from)}.pt"
    stored = artefacts.load_or_discard(file, digest_of(made_from))
    if stored is None:
        found = predict(task, member, pooling)
        values = {key: torch.from_numpy(getattr(found, key)) for key in PREDICTED}
        artefacts.save(file, made_from, metrics=json.dumps(metrics.intervals(found, resamples)), **values)
        stored = artefacts.load(file)
    measured = {key: Interval(*value) for key, value in json.loads(stored["metrics"]).items()}
    return Measurement(
        task.name, task.split, member, task.prompts_name, pooling, len(task.truth), task.class_names, measured, file
    )


def features_digest(file: Path) -> str | None:
    """Of which features a stored cell is; None for a damaged one."""
    stored = artefacts.load(file)
    return json.loads(stored["made_from"])["features"] if stored else None


def _made_from(task: DatasetTask, member: Member, pooling: str, resamples: int) -> dict:
    made_from = {
        "stage": "cell",
        "format": FORMAT,
        "features": features.stage(task, member).digest,
        "truth": digest_of({"labels": task.truth}),
        "resamples": resamples,
    }
    if member.is_head:
        return made_from | probs.head_made_from(task, member)
    of_prompts = {"text": text.digest(task, member.model), "prompts": task.prompts.digest, "pooling": pooling}
    return made_from | of_prompts | probs.kept_views(task, member)


def predict(task: DatasetTask, member: Member, pooling: str) -> Predictions:
    """The five best labels of each image and the first one's probability."""
    seen, encoded = features.of_member(task, member)
    total, classes, of = len(seen.ids), len(task.class_names), class_probs(task, member, pooling)
    tops, confidences = [], []
    for start in range(0, total, CHUNK):
        rows = seen.rows("features", start, min(start + CHUNK, total))
        best = of(rows).topk(min(5, classes), dim=1)
        tops.append(best.indices)
        confidences.append(best.values[:, 0])
    how = "classes" if pooling == NO_POOLING else f"{task.prompts_name} prompts, {pooling}"
    say("benchmark", f"{task.name} {member}", f"{how}: {encoded} images encoded, {total - encoded} reused")
    return Predictions(np.array(task.truth), torch.cat(tops).numpy(), torch.cat(confidences).numpy(), classes)


def class_probs(task: DatasetTask, member: Member, pooling: str) -> OfFeatures:
    """A function from image features (n, ...) to class probabilities (n, C), with the task's prompts or of a head."""
    if member.is_head:
        return probs.head_probs(task, member)
    if pooling == "embedding":
        return _prompt_probs(task, member, "class_mean")
    columns, of_prompts = Columns.of(task.prompts), prompt_probs(task, member)

    def pooled(images: torch.Tensor) -> torch.Tensor:
        try:
            return columns.class_probs(of_prompts(images), pooling)
        except ValueError as error:
            raise Mismatch(f"prompts/{task.prompts_name}: {error}") from None

    return pooled


def prompt_probs(task: DatasetTask, member: Member) -> OfFeatures:
    """A function from image features (n, ...) to probabilities of the task's prompts (n, P)."""
    return _prompt_probs(task, member, "prompts")


def _prompt_probs(task: DatasetTask, member: Member, kind: Kind) -> OfFeatures:
    known, _ = text.of_prompts(task, member.model, task.prompts)
    return probs.prompt_probs(task, member, kind, task.prompts, known)


def best(cells: Sequence[Measurement]) -> dict[tuple[str, str], Measurement]:
    """The cell with the highest accuracy of each data set and split."""
    winners: dict[tuple[str, str], Measurement] = {}
    for one in cells:
        known = winners.setdefault((one.dataset, one.split), one)
        if one.metrics["acc1"].value > known.metrics["acc1"].value:
            winners[one.dataset, one.split] = one
    return winners


def p_values(cells: Sequence[Measurement]) -> list[float | None]:
    """McNemar's p of each cell against the best of its data set; None for the best itself."""
    winners = [best(cells)[one.dataset, one.split] for one in cells]
    return [
        None if one is winner else metrics.mcnemar(one.predictions.right, winner.predictions.right)
        for one, winner in zip(cells, winners, strict=True)
    ]


HEADER = ("data set", "split", "images", "classes", "model", "prompts", "pooling", *SHOWN.values(), "p")


def rows(cells: Sequence[Measurement]) -> list[list[str]]:
    """The table's text, a row per cell: values with half the width of their interval, p against the best."""
    lines = []
    for one, p in zip(cells, p_values(cells), strict=True):
        values = [str(one.metrics[key]) for key in SHOWN]
        prompts = "-" if one.pooling == NO_POOLING else one.prompts
        data = (one.dataset, one.split, str(one.images), str(len(one.class_names)))
        lines.append([*data, one.member, prompts, one.pooling, *values, "best" if p is None else f"{p:.2g}"])
    return lines


def to_markdown(cells: Sequence[Measurement]) -> str:
    """The table, with the accuracy of the best of each data set in bold."""
    at = HEADER.index("acc1")
    lines = rows(cells)
    for line in lines:
        if line[-1] == "best":
            line[at] = f"**{line[at]}**"
    note = (
        "± is half the width of the 95 % bootstrap interval over images; p is McNemar's exact test against the "
        "best of the data set."
    )
    return f"{markdown(HEADER, lines)}\n\n{note}\n"


def to_csv(cells: Sequence[Measurement]) -> str:
    """Tidy: a line per cell and measure."""
    lines = [
        ("dataset", "split", "images", "classes", "model", "prompts", "pooling")
        + ("p_against_best", "measure", "value", "low", "high")
    ]
    for one, p in zip(cells, p_values(cells), strict=True):
        head = (one.dataset, one.split, one.images, len(one.class_names), one.member, one.prompts, one.pooling)
        for measure, value in one.metrics.items():
            lines.append((*head, "" if p is None else f"{p:.6g}", measure, *(f"{v:.6f}" for v in value)))
    return csv_lines(lines)
