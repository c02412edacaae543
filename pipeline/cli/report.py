"""Verb report: an HTML page about results."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..core.errors import UserError
from ..core.extras import need
from . import benchmark
from ._options import Arguments, checked_ensemble, competition, positive

HELP = "one HTML page about a submission, an ensemble or a benchmark"
USES = ("competition", "data", "ensemble", "model", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--n", type=positive, help="number of the submission (default: the newest)")
    benchmark.arguments(parser)


def run(runtime: Runtime, args: Arguments) -> None:
    need("report", "make report")
    from ..report import benchmark as benchmark_page
    from ..report import submission

    own = args.n or args.ensemble or args.model or args.preprocess
    if any((args.benchmark, args.datasets, args.models, args.prompts, args.poolings, args.split)):
        if own:
            raise UserError("N=, ENSEMBLE= and MODEL= are of a competition: give them, or a benchmark, not both")
        benchmark_page.write(runtime, *benchmark.asked_recipe(runtime, args))
        return
    task = competition(runtime, args)
    submission.write(task, args.n, checked_ensemble(task, args) if own and not args.n else None)
