"""Verb diff: what changed between two submissions, in words, and the images of it on a page."""

from argparse import ArgumentParser

from ..chain import scores
from ..chain.csv_format import CsvFormat
from ..chain.task import Runtime
from ..core.console import next_step, say
from ..core.errors import UserError
from ._options import Arguments, competition, positive

HELP = "what changed between two submissions, with the images"
USES = ("competition", "data")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--a", type=positive, help="number of the first submission (default: the one before the second)"
    )
    parser.add_argument("--b", type=positive, help="number of the second (default: the newest)")


def run(runtime: Runtime, args: Arguments) -> None:
    task = competition(runtime, args)
    before, after = CsvFormat(task).ledger.two(args.a, args.b)
    scores.show_difference(task, before, after)
    from ..report import flips

    try:
        flips.write(task, before, after)
    except UserError as error:  # the images may be away
        say("diff", f"{before} {after}", f"no pictures: {error}")
    next_step(f"make score COMPETITION={task.name} N={after} PUBLIC=... once it is uploaded, or edit and make submit")
