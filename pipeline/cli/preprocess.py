"""Verb preprocess: pixels of one preprocess recipe, or of all that the ensemble needs."""

from ..chain.task import Runtime
from ..core.console import next_step
from ._options import Arguments, asked_members, competition, report_damage

HELP = "images -> pixels of one recipe, or of all that the ensemble needs"
USES = ("competition", "data", "ensemble", "model", "compute")


def run(runtime: Runtime, args: Arguments) -> None:
    task = competition(runtime, args)
    recipes = [args.preprocess] if args.preprocess else [member.preprocess for member in asked_members(task, args)]
    from ..chain import preprocess
    from ..chain.stage import make

    for recipe in dict.fromkeys(recipes):
        make(preprocess.stage(task, recipe))
    report_damage(task, recipes)
    next_step(f"make submit COMPETITION={task.name}")
