"""Verb upload: a submission to the leaderboard."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..leaderboard import upload
from ._options import Arguments, competition, positive

HELP = "a submission to the leaderboard, and its score back"
USES = ("competition", "data")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--n", type=positive, help="number of the submission (default: the newest)")


def run(runtime: Runtime, args: Arguments) -> None:
    upload.run(competition(runtime, args), args.n)
