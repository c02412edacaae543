"""Verb analyse: what the images are like."""

from ..chain.task import Runtime
from ._options import Arguments, competition

HELP = "what the images are like: sizes, duplicates, resolution, damage"
USES = ("competition", "data", "compute")


def run(runtime: Runtime, args: Arguments) -> None:
    from ..report import analyse

    analyse.write(competition(runtime, args))
