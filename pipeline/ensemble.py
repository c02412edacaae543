"""Stage ensemble: weighted blend of the members' probabilities, in cache/<competition>/ensemble/."""

import time

from . import cache, infer
from .cache import Artefact
from .job import Job, say
from .recipes import Ensemble


def members(recipe: Ensemble) -> dict[str, float]:
    """The members that count, with weights that sum to 1."""
    total = sum(recipe.members.values())
    return {member: weight / total for member, weight in recipe.members.items() if weight > 0}


def columns(recipe: Ensemble) -> str:
    """Which columns the members' probabilities have: one per prompt, or one per class (mean text embedding)."""
    return "class_mean" if recipe.pooling == "embedding" else "prompts"


def artefact(job: Job, name: str) -> Artefact:
    """What the stage makes: `probs` float32 (N, P)."""
    recipe = job.project.ensemble(name)
    parts = {member: infer.artefact(job, member, columns(recipe)) for member in members(recipe)}
    made_from = {"stage": "ensemble", "format": cache.FORMAT,
                 "members": [[parts[member].digest, weight] for member, weight in members(recipe).items()]}  # fmt: skip
    return Artefact(job.cache / "ensemble" / name, made_from, job.images.ids)


def run(job: Job, name: str) -> Artefact:
    """Blend the members of a recipe, inferring those that are not cached."""
    from . import zeroshot

    recipe, result = job.project.ensemble(name), artefact(job, name)
    gaps = result.missing(job.shard_rows)
    if not gaps:
        say("ensemble", name, f"{len(result.ids)} images reused")
        return result
    weights = members(recipe)
    parts = [infer.run(job, member, columns(recipe)) for member in weights]
    began = time.perf_counter()
    for start, stop in gaps:
        blended = zeroshot.blend([part.rows("probs", start, stop) for part in parts], list(weights.values()))
        result.save(start, stop, probs=blended, **infer.columns_of(job, columns(recipe)))
    blend = " + ".join(f"{weight:.3g} {member}" for member, weight in weights.items())
    say("ensemble", name, f"{blend}; {len(result.ids)} images in {time.perf_counter() - began:.2f} s")
    return result
