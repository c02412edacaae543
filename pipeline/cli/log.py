"""Verb log: the submissions so far."""

from ..chain import scores
from ..chain.task import Runtime
from ._options import Arguments, competition

HELP = "the submissions so far"
USES = ("competition",)


def run(runtime: Runtime, args: Arguments) -> None:
    scores.show_log(competition(runtime, args))
