"""Verb diff: what changed between two submissions."""

from argparse import ArgumentParser

from ..chain import scores
from ..chain.task import Runtime
from ._options import Arguments, competition, positive

HELP = "what changed between two submissions"
USES = ("competition", "data")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--a", type=positive, required=True, help="number of the first submission")
    parser.add_argument("--b", type=positive, required=True, help="number of the second")


def run(runtime: Runtime, args: Arguments) -> None:
    scores.show_difference(competition(runtime, args), args.a, args.b)
