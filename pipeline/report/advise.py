"""Verb advise: what to look at before a submission is spent. No label is looked at, nothing is encoded again."""

import contextlib
import sys

import numpy as np

from ..chain import classes, ensemble, features
from ..chain.csv_format import CsvFormat
from ..chain.scores import uploads
from ..chain.stage import made
from ..chain.task import Task
from ..core.console import say, tell
from ..core.tables import table
from ..maths.refine.guards import Outcome
from . import collect
from .result import Result

FEW = 5  # rows of each table
NOTABLE = 3  # standard errors
WEIGHTY = 0.01  # of the images whose label one prompt decides
RECOMMENDED = "recommended"  # the step that is tried
WIDE = 6  # more classes than this are listed by pairs


def advise(task: Task, name: str) -> Result:
    """Print about a recipe: disagreement, prompts, classes, images, and what the board can see of the change."""
    with contextlib.redirect_stdout(sys.stderr):  # so that what is said begins with the sentences
        result = collect.of_ensemble(task, name, features=False)
        parts = [said(result), *blocks(result), refinement(task, name), _uploads(task)]
    tell("\n\n".join(part for part in parts if part))
    say(
        "advise",
        name,
        f"{len(result.labels):,} images, no label looked at; make report ENSEMBLE={name} shows the images",
    )
    return result


def said(result: Result) -> str:
    """Three sentences: what the members agree on, whether the classes look as expected, where to look first."""
    total, names = len(result.labels), result.class_names
    if len(result.members) > 1:
        apart = int((result.dissent > 0).sum())
        first = f"Your members agree on {total - apart:,} of {total:,} images and dispute {apart:,}."
    else:
        first = f"One model decides about all {total:,} images."
    worst = int(np.abs(result.off_prior).argmax())
    expected, counted = round(float(result.expected[worst])), int(result.counts[worst])
    if abs(result.off_prior[worst]) < NOTABLE:
        second = "No class is predicted much more or less often than expected."
    else:
        way = "more" if counted > expected else "less"
        second = f"{names[worst]} comes {way} often than expected, {counted:,} times and not about {expected:,}."
    most = max(result.prompts, key=lambda use: use.flips, default=None)
    if most is not None and most.flips > total * WEIGHTY:
        third = f"Look first at the prompt {most.prompt[:40]!r}, without which {most.flips:,} labels are others."
    else:
        doubtful = ", ".join(str(result.ids[row]) for row in result.doubtful[:3])
        third = f"Look first at the images it is least sure of: {doubtful}."
    return "\n".join([first, second, third])


def blocks(result: Result) -> list[str]:
    """The parts of the table, at most 40 lines together; '' for what is not known."""
    return [_members(result), _pairs(result), _prompts(result), _classes(result), _images(result), _changes(result)]


def _members(result: Result) -> str:
    if len(result.members) < 2:
        return ""
    shown = sorted(result.members, key=lambda member: -(member.flips or 0))[:FEW]
    rows = [
        (m.name, f"{m.weight:.3f}", f"{(m.labels != result.labels).mean():.2%}", "" if m.flips is None else m.flips)
        for m in shown
    ]
    apart = int((result.dissent > 0).sum())
    head = ("member", "weight", "says otherwise", "labels that flip without it")
    return f"{table(head, rows)}\nmembers disagree about {apart:,} images ({apart / len(result.labels):.1%})"


def _pairs(result: Result) -> str:
    """Where they disagree: all pairs of a few classes, the commonest pairs of many."""
    if len(result.members) < 2 or not result.two_way.any():
        return ""
    names, found = result.class_names, result.two_way
    if len(names) <= WIDE:
        rows = [(name, *found[c]) for c, name in enumerate(names)]
        return table(("label \\ a member says", *(name[:12] for name in names)), rows)
    pairs = [divmod(int(cell), len(names)) for cell in np.argsort(-found, axis=None, kind="stable")[:FEW]]
    rows = [(names[label], names[said], found[label, said]) for label, said in pairs if found[label, said]]
    return table(("label", "a member says", "images"), rows)


def _prompts(result: Result) -> str:
    if not result.prompts:
        return ""
    shown = sorted(result.prompts, key=lambda use: (-use.flips, -use.largest))[:FEW]
    rows = [(use.flips, result.class_names[use.label], use.prompt[:70]) for use in shown]
    return table(("flip without it", "class", "prompt"), rows)


def _classes(result: Result) -> str:
    """The classes furthest from the prior; with how many of their labels one prompt alone decides."""
    known = result.fragile is not None
    moved = np.bincount(result.labels[result.fragile], minlength=len(result.class_names)) if known else ()
    shown = np.argsort(-np.abs(result.off_prior), kind="stable")[:WIDE]
    rows = [
        (
            result.class_names[c],
            result.counts[c],
            f"{result.expected[c]:.0f}",
            f"{result.off_prior[c]:+.1f}",
            *([moved[c]] if known else []),
        )
        for c in shown
    ]
    head = ("class", "predicted", "expected", "standard errors away", *(["one prompt decides"] if known else []))
    return f"{table(head, rows)}\nexpected: {result.expectation}; at least {result.moved_by_prior:,} labels away"


def _images(result: Result) -> str:
    top = result.doubtful[: 2 * FEW]
    return f"look at: {', '.join(str(result.ids[row]) for row in top)}"


def refinement(task: Task, name: str) -> str:
    """Whether `refine: [recommended]` would be kept, and why; '' for a recipe with steps, which are told of as it runs.

    Nothing is encoded for it: '' as well where image features are no longer in the cache, or none has a text tower.
    """
    recipe = task.project.ensemble(name)
    if recipe.refine or all(member.is_head for member in ensemble.members(recipe)):
        return ""
    asked = f"refine: [{RECOMMENDED}]"
    if not task.rules.test_set:
        return f"{asked} looks at all test images, which {task.where} forbids"
    if any(stage.missing(stage.shard_rows) for stage in (features.stage(task, one) for one in ensemble.towers(recipe))):
        return ""
    tried = recipe.model_copy(update={"refine": ((RECOMMENDED, None),), "guards": True})
    outcomes: list[Outcome] = []
    pooled = classes.decide(task, name).pooled
    parts = lambda member: made(ensemble.part(task, recipe, member))  # noqa: E731
    classes.refine(task, tried, pooled, asked, parts, outcomes.append)
    return "\n".join(f"{asked} {in_words(outcome)}" for outcome in outcomes)


def in_words(outcome: Outcome) -> str:
    """What would become of a step."""
    if outcome.refused:
        return f"would not be kept: {outcome.refused}"
    held = f", and hold back {outcome.withheld:,} changes that similar images speak against" if outcome.withheld else ""
    return f"would change {outcome.changed:,} labels{held}"


def _uploads(task: Task) -> str:
    lines = CsvFormat(task).ledger.log()
    return f"uploads: {uploads(lines)}" if any(line["uploaded"] for line in lines) else ""


def _changes(result: Result) -> str:
    return "\n".join(f"against {change.against}: {change.seen}" for change in result.changes)
