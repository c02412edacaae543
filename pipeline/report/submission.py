"""The page of a submission, or of an ensemble without one."""

from pathlib import Path

from ..chain.task import Task
from ..core.errors import UserError
from . import collect, page, sections


def write(task: Task, number: int | None, ensemble: str | None) -> Path:
    """Write reports/<competition>/<NNN-recipe>.html about submission `number` (None: the newest), or an ensemble."""
    if number and ensemble:
        raise UserError("give N= for a submission or ENSEMBLE= for an ensemble as it is now, not both")
    result = collect.of_ensemble(task, ensemble) if ensemble else collect.of_submission(task, number)
    target = task.reports / f"{result.stem}.html"
    page.write(target, result.title, result.subtitle, sections.cards(result), sections.every(result), result.notes)
    return page.said(target)
