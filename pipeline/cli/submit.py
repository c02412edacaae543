"""Verb submit: the checked CSV."""

from argparse import ArgumentParser

from ..chain.ledger import number_of
from ..chain.task import Runtime
from ..core.console import next_step, warn
from ..leaderboard import upload
from ..leaderboard.services import service_of
from ._options import Arguments, checked_ensemble, competition, only_encodes, report_damage

HELP = "pool, check and write the CSV"
USES = ("competition", "data", "ensemble", "model", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--upload", action="store_true", help="upload it as well")


def run(runtime: Runtime, args: Arguments) -> int:
    task = competition(runtime, args)
    name = checked_ensemble(task, args)
    if only_encodes(task, name):
        return 0
    if args.upload:
        service_of(task)  # what cannot be uploaded is told before hours of inference
    from ..chain import ensemble
    from ..chain.main_job import submit

    number = number_of(submit(task, name))
    damaged = report_damage(task, ensemble.preprocess_recipes(task.project.ensemble(name)))
    if damaged and args.upload:
        warn(f"not uploaded, because of the damaged images; 'make upload N={number}' does it all the same")
    elif args.upload:
        upload.run(task, number)
    scored = f"make score COMPETITION={task.name} N={number} PUBLIC=... once it is uploaded"
    next_step(f"make diff COMPETITION={task.name}; {scored}" if number > 1 else scored)
    return damaged
