"""Verb submit: the checked CSV."""

from ..chain.task import Runtime
from ._options import Arguments, checked_ensemble, competition, only_encodes, report_damage

HELP = "pool, check and write the CSV"
USES = ("competition", "data", "ensemble", "model", "compute")


def run(runtime: Runtime, args: Arguments) -> int:
    task = competition(runtime, args)
    name = checked_ensemble(task, args)
    if only_encodes(task, name):
        return 0
    from ..chain import ensemble
    from ..chain.main_job import submit

    submit(task, name)
    return report_damage(task, ensemble.preprocess_recipes(task.project.ensemble(name)))
