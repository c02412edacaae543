"""Verb advise: what to look at before a submission is spent."""

from ..chain.task import Runtime
from ._options import Arguments, checked_ensemble, competition

HELP = "what to look at before a submission is spent, without labels"
USES = ("competition", "data", "ensemble", "model", "compute")


def run(runtime: Runtime, args: Arguments) -> None:
    task = competition(runtime, args)
    name = checked_ensemble(task, args)
    from ..report import advise

    advise.advise(task, name)
