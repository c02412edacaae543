"""Verb threshold: the blend with its low values made zero."""

from ..chain.task import Runtime
from ..core.console import next_step, say
from ._options import Arguments, checked_ensemble, competition, only_encodes

HELP = "low probabilities of the blend become zero"
USES = ("competition", "data", "ensemble", "model", "compute")


def run(runtime: Runtime, args: Arguments) -> None:
    task = competition(runtime, args)
    name = checked_ensemble(task, args)
    if only_encodes(task, name):
        return
    from ..chain import threshold
    from ..chain.stage import make

    make(threshold.stage(task, name))
    if not task.project.ensemble(name).threshold:
        say("threshold", name, "none, nothing changes")
    next_step(f"make submit COMPETITION={task.name}")
