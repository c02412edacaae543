"""Stage threshold: low probabilities of the blend become zero, in cache/<competition>/threshold/."""

import time

from ..core.artefacts import Artefact
from ..core.console import say
from ..core.digests import FORMAT
from . import ensemble
from .task import Task


def artefact(task: Task, name: str) -> Artefact:
    """What the stage makes: `probs` float32 (N, P), not renormalised."""
    blended = ensemble.artefact(task, name)
    limit = task.project.ensemble(name).threshold
    made_from = {"stage": "threshold", "format": FORMAT, "ensemble": blended.digest, "threshold": limit}
    return Artefact(task.cache / "threshold" / name, made_from, blended.ids)


def run(task: Task, name: str) -> Artefact:
    """Threshold a recipe's blend, before it is pooled."""
    from ..maths import zeroshot

    recipe, result = task.project.ensemble(name), artefact(task, name)
    gaps = result.missing(task.shard_rows)
    if not gaps:
        say("threshold", name, f"{len(result.ids)} images reused")
        return result
    blended = ensemble.run(task, name)
    began, zeroed, total = time.perf_counter(), 0, 0
    for start, stop in gaps:
        probs = zeroshot.threshold(blended.rows("probs", start, stop), recipe.threshold)
        zeroed, total = zeroed + int((probs == 0).sum()), total + probs.numel()
        result.save(start, stop, probs=probs, **ensemble.blended_columns(task, recipe))
    done = f"{zeroed / total:.1%} of the values are not above {recipe.threshold:g} and become 0"
    say(
        "threshold",
        name,
        f"{done if recipe.threshold else 'none, nothing changes'}; "
        f"{len(result.ids)} images in {time.perf_counter() - began:.2f} s",
    )
    return result
