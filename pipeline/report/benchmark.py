"""The page of a benchmark: all cells beside each other, then the best one of each data set in detail."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..chain import features
from ..chain import provenance as provenance_of
from ..chain.task import Runtime
from ..core.console import rank
from ..labelled import benchmark
from ..labelled.benchmark import SHOWN, Measurement
from ..labelled.task import DatasetTask
from ..maths.metrics import Interval
from ..recipes import Benchmark
from . import collect, page, sections
from .page import Details, Figure, Section, Table, Text, charts, number
from .sections.provenance import how_seen, surroundings


def write(runtime: Runtime, recipe: Benchmark, name: str) -> Path | None:
    """Write reports/benchmarks/<name>.html, measuring first what is not yet measured (None: not the first process)."""
    measured = benchmark.measure(runtime, recipe, name)
    if rank():
        return None
    target = runtime.project.root / "reports" / "benchmarks" / f"{name}.html"
    made = provenance(runtime, recipe, name, measured)
    page.write(target, f"Benchmark {name}", recipe.note, cards(measured), every(runtime, measured, made))
    return page.said(target)


def cards(cells: Sequence[Measurement]) -> list[tuple[str, str, str]]:
    """The headline numbers: how much was measured, and the best accuracy of each data set."""
    best = benchmark.best(cells).values()
    images = sum(cell.images for cell in best)
    made = [(f"{len(cells):,}", "cells", f"{len({cell.member for cell in cells})} members, {images:,} images")]
    for cell in best:
        low, high = cell.metrics["acc1"][1:]
        made.append(
            (
                f"{cell.metrics['acc1'].value:.2%}",
                f"best acc1, {cell.dataset}",
                f"{cell.member}; 95 % interval {low:.1%} to {high:.1%}",
            )
        )
    return made


def every(task: Runtime, cells: Sequence[Measurement], made: dict) -> list[Section]:
    """All sections in reading order."""
    parts = [part for cell in benchmark.best(cells).values() for part in _part(task, cells, cell)]
    return [table(cells), chart(cells), *parts, _provenance(made)]


def table(cells: Sequence[Measurement]) -> Section:
    """Every cell with its measures."""
    rows = []
    for cell, p in zip(cells, benchmark.p_values(cells), strict=True):
        against = number(1.0, "best") if p is None else number(p, f"{p:.2g}")
        rows.append(
            (
                cell.member,
                *(_interval(cell.metrics[key]) for key in SHOWN),
                against,
                f"{cell.dataset}, {cell.split}",
                cell.prompts,
                cell.pooling,
                number(cell.images),
            )
        )
    note = (
        "In percent, below it the 95 % bootstrap interval over images. ECE: expected calibration error. "
        "p: McNemar's exact test against the best cell of the data set."
    )
    columns = ("member", *SHOWN.values(), "p", "data set, split", "prompts", "pooling", "images")
    return Section("All cells", note, [Table(columns, rows)])


def _interval(value: Interval) -> Text:
    middle, low, high = (100 * bound for bound in value)
    return number(value.value, f"{middle:.1f}\n{low:.1f}\u2013{high:.1f}")


def chart(cells: Sequence[Measurement]) -> Section:
    """A drawing per data set; the cells of a member stand together, the best member's on top."""
    figures = []
    for best in benchmark.best(cells).values():
        own = [cell for cell in cells if (cell.dataset, cell.split) == (best.dataset, best.split)]
        own = sorted(own, key=_accuracy, reverse=True)
        order = {member: place for place, member in enumerate(dict.fromkeys(cell.member for cell in own))}
        own = sorted(own, key=lambda cell: order[cell.member])  # of each the best first still
        values = [cell.metrics["acc1"] for cell in own]
        svg = charts.intervals(list(map(_name, own)), values, "acc1")
        figures.append(Figure(svg, f"{best.dataset}, {best.images:,} images of {best.split}", width=540))
    return Section("Accuracy", "acc1 with its 95 % interval, the best member of a data set on top.", figures)


def _accuracy(cell: Measurement) -> float:
    return cell.metrics["acc1"].value


def _name(cell: Measurement) -> str:
    return f"{cell.member}, {cell.prompts}, {cell.pooling}"


def _part(task: Runtime, cells: Sequence[Measurement], cell: Measurement) -> Iterator[Section]:
    """The sections about a data set's best cell, with a heading of their own."""
    result = collect.of_cell(
        DatasetTask.of(task, cell.dataset, asked_split=cell.split, asked_prompts=cell.prompts), cells, cell
    )
    note = f"The best cell in detail: {_name(cell)}. Images and labels are those of split {cell.split!r}"
    chosen = sum((one.dataset, one.split) == (cell.dataset, cell.split) for one in cells) > 1
    note += "; it was chosen by the same labels, which flatters its accuracy a little." if chosen else "."
    yield Section(cell.dataset, note)
    for section in sections.every(result):
        yield replace(section, part=cell.dataset)


def provenance(task: Runtime, recipe: Benchmark, name: str, cells: Sequence[Measurement]) -> dict:
    """How the page was made: enough to make it again."""
    datasets, members = {}, {}
    for cell in cells:
        one = DatasetTask.of(task, cell.dataset, asked_split=cell.split, asked_prompts=cell.prompts)
        known = datasets.setdefault(cell.dataset, _facts_of_data(one))
        known["prompts"][cell.prompts] = {"count": len(one.prompts.prompts), "digest": one.prompts.digest}
        known["features"][cell.member] = features.stage(one, cell.member).digest
        known["cells"][_name(cell)] = cell.file.stem
        members[cell.member] = provenance_of.of_member(one, cell.member)
    return {
        "benchmark": {"name": name, **recipe.model_dump(mode="json")},
        "datasets": datasets,
        "members": members,
        **provenance_of.surroundings(task.project.root),
    }


def _facts_of_data(task: DatasetTask) -> dict:
    """A data set and its measured split; the digests of prompts, features and cells are still to come."""
    return {
        "recipe": task.recipe.model_dump(mode="json", exclude_none=True),
        "data": task.source,
        "split": task.split,
        "images": {"count": len(task.images.ids), "digest": task.images_digest()},
        "prompts": {},
        "features": {},
        "cells": {},
    }


def _provenance(made: dict) -> Section:
    recipe = made["benchmark"]
    facts = {
        "benchmark": recipe["name"],
        "note": recipe["note"] or "none",
        "resamples": f"{recipe['resamples']:,}",
        **surroundings(made),
    }
    rows = list(facts.items())
    for name, known in made["datasets"].items():
        images = known["images"]
        rows.append(
            (
                f"data set {name}",
                f"{known['data']}, labels of split {known['split']!r}, {images['count']:,} images ({images['digest']})",
            )
        )
        rows += [
            (f"prompts {prompts} for {name}", f"{of['count']:,} ({of['digest']})")
            for prompts, of in known["prompts"].items()
        ]
    rows += [(f"member {name}", how_seen(member)) for name, member in made["members"].items()]
    text = json.dumps(made, indent=1, ensure_ascii=False)
    return Section(
        "Provenance",
        "How this was made; enough to make it again.",
        [Table(("what", "value"), rows), Details("The whole JSON", text)],
    )
