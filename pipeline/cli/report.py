"""Verb report: an HTML page about results."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..core.errors import UserError
from . import benchmark
from ._options import Arguments, competition, positive

HELP = "one HTML page about a submission, an ensemble or a benchmark"


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--n", type=positive, help="number of the submission (default: the newest)")
    benchmark.arguments(parser)


def run(runtime: Runtime, args: Arguments) -> None:
    from .. import report

    if any((args.benchmark, args.datasets, args.models, args.prompts, args.poolings, args.split)):
        if args.n or args.ensemble:
            raise UserError("N= and ENSEMBLE= are of a competition: give them, or a benchmark, not both")
        report.of_benchmark(runtime, *benchmark.asked_recipe(runtime, args))
    else:
        report.of_task(competition(runtime, args), args.n, args.ensemble)
