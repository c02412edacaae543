"""Verb report: one HTML page about a submission, about an ensemble without one, or about a benchmark."""

from pathlib import Path

from .. import page
from ..errors import UserError
from ..job import Job, say
from ..recipes import Benchmark


def run(job: Job, number: int | None, ensemble: str | None) -> Path:
    """Write reports/<competition>/<NNN-recipe>.html about submission `number` (None: the newest), or an ensemble."""
    if number and ensemble:
        raise UserError("give N= for a submission or ENSEMBLE= for an ensemble as it is now, not both")
    page.need_packages("report")
    from . import collect, sections

    result = collect.of_ensemble(job, ensemble) if ensemble else collect.of_submission(job, number)
    target = job.project.root / "reports" / job.competition_name / f"{result.stem}.html"
    page.write(target, result.title, result.subtitle, sections.cards(result), sections.every(result), result.notes)
    return _said(target)


def of_benchmark(job: Job, recipe: Benchmark, name: str) -> Path | None:
    """Write reports/benchmarks/<name>.html, measuring first what is not yet measured (None: not the first process)."""
    page.need_packages("report")
    from .. import benchmark
    from . import cells

    measured = benchmark.run(job, recipe, name)
    if job.rank:
        return None
    target = job.project.root / "reports" / "benchmarks" / f"{name}.html"
    made = cells.provenance(job, recipe, name, measured)
    page.write(target, f"Benchmark {name}", recipe.note, cells.cards(measured), cells.every(job, measured, made))
    return _said(target)


def _said(target: Path) -> Path:
    say("report", target.stem, f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return target
