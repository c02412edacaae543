"""Verb score: the leaderboard's answer."""

from argparse import ArgumentParser, ArgumentTypeError

from ..chain import scores
from ..chain.task import Runtime
from ._options import Arguments, competition, positive

HELP = "record a leaderboard score of a submission"
USES = ("competition",)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--n", type=positive, required=True, help="number of the submission")
    parser.add_argument("--public", type=_score, help="public score, e.g. 0.92024")
    parser.add_argument("--private", type=_score, help="private score")


def _score(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number such as 0.92024") from None


def run(runtime: Runtime, args: Arguments) -> None:
    scores.record(competition(runtime, args), args.n, args.public, args.private)
