"""Verb scores: what the leaderboard says of all that was uploaded."""

from ..chain.task import Runtime
from ..leaderboard import scores
from ._options import Arguments, competition

HELP = "fetch the scores of all uploaded submissions"
USES = ("competition",)


def run(runtime: Runtime, args: Arguments) -> None:
    scores.run(competition(runtime, args))
