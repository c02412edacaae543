"""Verb ensemble: the blend of the members."""

from ..chain.task import Runtime
from ..core.console import next_step
from ._options import Arguments, checked_ensemble, competition, only_encodes

HELP = "weighted blend of the members"
USES = ("competition", "data", "ensemble", "model", "compute")


def run(runtime: Runtime, args: Arguments) -> None:
    task = competition(runtime, args)
    name = checked_ensemble(task, args)
    if only_encodes(task, name):
        return
    from ..chain import ensemble
    from ..chain.stage import make

    make(ensemble.stage(task, name))
    next_step(f"make submit COMPETITION={task.name}")
