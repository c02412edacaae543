"""Verb report: one HTML page about a submission, about an ensemble without one, or about a benchmark."""

from pathlib import Path

from ..chain.task import Runtime, Task
from ..core.console import rank, say
from ..core.errors import UserError
from ..core.extras import need
from ..recipes import Benchmark
from . import page


def of_task(task: Task, number: int | None, ensemble: str | None) -> Path:
    """Write reports/<competition>/<NNN-recipe>.html about submission `number` (None: the newest), or an ensemble."""
    if number and ensemble:
        raise UserError("give N= for a submission or ENSEMBLE= for an ensemble as it is now, not both")
    need("report", "make report")
    from . import collect, sections

    result = collect.of_ensemble(task, ensemble) if ensemble else collect.of_submission(task, number)
    target = task.project.root / "reports" / task.name / f"{result.stem}.html"
    page.write(target, result.title, result.subtitle, sections.cards(result), sections.every(result), result.notes)
    return _said(target)


def of_benchmark(runtime: Runtime, recipe: Benchmark, name: str) -> Path | None:
    """Write reports/benchmarks/<name>.html, measuring first what is not yet measured (None: not the first process)."""
    need("report", "make report")
    from ..labelled import benchmark
    from . import cells

    measured = benchmark.measure(runtime, recipe, name)
    if rank():
        return None
    target = runtime.project.root / "reports" / "benchmarks" / f"{name}.html"
    made = cells.provenance(runtime, recipe, name, measured)
    page.write(target, f"Benchmark {name}", recipe.note, cells.cards(measured), cells.every(runtime, measured, made))
    return _said(target)


def _said(target: Path) -> Path:
    say("report", target.stem, f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return target
