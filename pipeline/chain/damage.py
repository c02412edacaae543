"""What was wrong with images and what was done about it: recorded while they are decoded, told in problems.csv.

The record is an artefact beside the pixels, so that it is known as well when pixels, or what follows from them, are
reused; where it is lost and something may depend on it, the images are decoded again for it.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.console import say, warn
from ..core.errors import UserError, joint_kind
from ..core.files import atomic_file
from ..core.tables import csv_text
from ..images import problems
from ..images.decoding import DamagedImage, Decoded
from ..images.problems import FALLBACK, FILLED, SEVERAL, STOPPED, Problem, of_picture
from .stage import Advance, Stage, Work, declare, make
from .task import Task

EXIT_STATUS = 3  # of a submission that was written although images were damaged
COLUMNS = ("row", "image", "problem", "done")
NAMED = 20  # damaged images in a message; problems.csv has all
DONE = {
    FILLED: "filled: the part that can be decoded is used",
    FALLBACK: "fallback: not used; gets the label predicted most often, or where the rules forbid that a likely one",
    STOPPED: "the run stopped",
}


def stage(task: Task, name: str) -> Stage:
    """The record that comes with the pixels of a preprocess recipe: `found`, a list of [row, done, why] per shard."""
    made_from = {
        "images": task.images_digest(),
        "decode": task.policy.content(),
        "preprocess": task.project.preprocess(name).content(),
    }
    return declare(task, "problems", name, made_from, verb="preprocess", begin=lambda _: Record(task, name))


@dataclass(frozen=True)
class Record(Work):
    """The work of the stage, where the record was lost: the images are decoded again for it."""

    task: Task
    name: str

    def rows(self, start: int, stop: int, advance: Advance) -> dict:
        draft_size = self.task.project.preprocess(self.name).draft_size
        with ThreadPoolExecutor(self.task.threads) as pool:
            seen = pool.map(lambda row: of_picture(row, picture(self.task, row, draft_size)), range(start, stop))
            return {"found": [list(problem) for found in seen for problem in found]}

    def told(self, rows: int, seconds: float) -> str:
        return ""


def picture(task: Task, row: int, draft_size: int | None) -> Decoded:
    """An image as the task's policy has it (`problems.picture`)."""
    return problems.picture(
        lambda: task.images.open(row, draft_size, task.policy), task.images.ids[row], task.contents()[row], task.policy
    )


def save(task: Task, name: str, start: int, stop: int, found: Iterable[Problem]) -> None:
    """Record the images start..stop."""
    stage(task, name).save(start, stop, found=[list(one) for one in found])


def recorded(task: Task, names: Iterable[str]) -> list[Problem]:
    """The record of all images, each problem once, in row order; decodes again what is missing and may matter."""
    found: set[Problem] = set()
    for name in dict.fromkeys(names):
        record = stage(task, name)
        if task.policy.fill or task.policy.fallback:
            make(record)
        for shard in record.shards():
            found |= {Problem(*one) for one in record.read(*shard)["found"]}
    return sorted(found)


def without_picture(task: Task, names: Iterable[str]) -> list[int]:
    """The rows that have no picture and so no prediction of their own."""
    if not task.policy.fallback:
        return []
    return sorted({problem.row for problem in recorded(task, names) if problem.done == FALLBACK})


def whole(task: Task, names: Iterable[str]) -> Tensor:
    """Which images there is a picture of, bool (N,)."""
    whole_N = torch.ones(len(task.images.ids), dtype=torch.bool)
    whole_N[without_picture(task, names)] = False
    return whole_N


def report(task: Task, names: Iterable[str]) -> int:
    """Tell what the record says and write problems.csv, or remove it; returns the number of damaged images."""
    found = recorded(task, names)
    several = [task.images.ids[problem.row] for problem in found if problem.done == SEVERAL]
    if several:
        say("images", task.name, f"of {len(several)} with several frames or pages the first is used: {_some(several)}")
    damaged = [problem for problem in found if problem.done != SEVERAL]
    _write(task, damaged)
    if damaged:
        counts = ", ".join(
            f"{sum(p.done == done for p in damaged)} {done}"
            for done in (FILLED, FALLBACK)
            if any(p.done == done for p in damaged)
        )
        damaged_ids = _some([task.images.ids[problem.row] for problem in damaged])
        warn(
            f"{len(damaged)} of {len(task.images.ids)} images are damaged ({counts}): {damaged_ids}. "
            f"{task.reports / 'problems.csv'} says what is wrong with each"
        )
    return len({problem.row for problem in damaged})


def refusal(task: Task, errors: Iterable[tuple[int, UserError]]) -> UserError:
    """One error for all (row, error) of a run that stops, NAMED of them word for word; all are in problems.csv."""
    errors = list(errors)
    damaged = [Problem(row, STOPPED, error.why) for row, error in errors if isinstance(error, DamagedImage)]
    lines = list(dict.fromkeys(str(error) for _, error in errors))
    more = [f"... and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    counted = [f"{len(errors)} images failed"] if errors[1:] else []
    if damaged:
        _write(task, damaged)
        choices = ("fill",) if task.labelled else ("fill", "fallback")
        keys = " or ".join(f"'damaged_images: {choice}'" for choice in choices)
        counted.append(
            f"{task.reports / 'problems.csv'} lists them. To go on in spite of them, give {keys} in {task.where}"
        )
    return joint_kind(error for _, error in errors)("\n".join([*lines[:NAMED], *more, *counted]))


def _write(task: Task, problems: list[Problem]) -> None:
    target = task.reports / "problems.csv"
    if not problems:
        target.unlink(missing_ok=True)
        return
    rows = [(row, task.images.ids[row], why, DONE[done]) for row, done, why in problems]
    with atomic_file(target) as temporary:
        temporary.write_text(csv_text(COLUMNS, rows), encoding="utf-8", errors="surrogateescape")


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
