"""Verb report: one HTML page about a submission, or about an ensemble without one."""

from pathlib import Path

from .. import page
from ..errors import UserError
from ..job import Job, say


def run(job: Job, number: int | None, ensemble: str | None) -> Path:
    """Write reports/<competition>/<NNN-recipe>.html about submission `number` (None: the newest), or an ensemble."""
    if number and ensemble:
        raise UserError("give N= for a submission or ENSEMBLE= for an ensemble as it is now, not both")
    page.need_packages("report")
    from . import collect, sections

    result = collect.of_ensemble(job, ensemble) if ensemble else collect.of_submission(job, number)
    target = job.project.root / "reports" / job.competition_name / f"{result.stem}.html"
    page.write(target, result.title, result.subtitle, sections.cards(result), sections.every(result), result.notes)
    say("report", result.stem, f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return target
