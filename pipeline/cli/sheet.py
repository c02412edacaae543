"""Verb sheet: a contact sheet."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ._options import Arguments, competition, positive

HELP = "a contact sheet of a submission"
USES = ("competition", "data")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--n", type=positive, help="number of the submission (default: the newest)")


def run(runtime: Runtime, args: Arguments) -> None:
    from ..report import sheet

    sheet.draw(competition(runtime, args), args.n)
