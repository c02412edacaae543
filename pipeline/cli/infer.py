"""Verb infer: prompt probabilities of one member, or of all."""

from ..chain.task import Runtime
from ..core.console import next_step, rank
from ._options import Arguments, asked_members, checked_ensemble, competition, report_damage

HELP = "prompt probabilities of one model, or of all members of the ensemble"
USES = ("competition", "data", "ensemble", "model", "compute")


def run(runtime: Runtime, args: Arguments) -> None:
    task = competition(runtime, args)
    members = asked_members(task, args)
    from ..chain import ensemble, probs
    from ..chain.stage import make

    for member in members:
        if args.model:  # alone it gives all prompts; an ensemble decides which columns its members need
            probs.of_member(task, member)
        else:
            make(ensemble.part(task, task.project.ensemble(checked_ensemble(task, args)), member))
    if not rank():
        report_damage(task, [member.preprocess for member in members])
    next_step(f"make submit COMPETITION={task.name}")
