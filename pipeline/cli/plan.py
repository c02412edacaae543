"""Verb plan: what a submission would reuse and compute, how much it would write, and about how long it would take.

Nothing is computed or downloaded. Times come from a short calibration on this machine: a few images through the
preprocess ops, and a batch through each image tower that is needed and on disk.
"""

import time

from ..chain import ensemble, infer, preprocess, problems, rules, threshold
from ..chain.task import Task
from ..core.artefacts import Artefact
from ..core.tables import table
from ..images import views
from ..images.ops import compile_recipe
from ..recipes import Ensemble
from .list_models import weights_state

SAMPLE = 16  # images of a calibration


def run(task: Task, name: str) -> None:
    """Print the table for one ensemble recipe."""
    rules.check(task, name)
    recipe, rows, total = task.project.ensemble(name), [], 0.0
    for member in ensemble.members(recipe):
        for row, seconds in _member(task, recipe, member):
            rows.append(row)
            total += seconds or 0
    width = len(ensemble.blended_columns(task, recipe, ensemble.prompts_of)["prompts"])
    for stage, artefact in (("ensemble", ensemble.artefact(task, name)), ("threshold", threshold.artefact(task, name))):
        rows.append(_row(stage, name, "images", artefact, task, 4 * width, 0.0))
    print(table(("stage", "what", "cached", "to do", "", "GB to write", "time"), rows))
    if not any(row[3] for row in rows):
        print("nothing to compute")
        return
    unknown = any(row[-1].startswith("unknown") for row in rows)
    print(f"about {_duration(total)} on {task.device}, {task.dtype}" + (", and what is unknown" if unknown else ""))


def _member(task: Task, ensemble_recipe: Ensemble, member: str):
    """(row, seconds) of each stage of one member; seconds None where they cannot be known yet."""
    model_name, recipe = infer.split(task.project.tower(member))
    entry = task.project.model(model_name)
    infer.check_recipe(task.project, task.project.tower(member), entry.size, entry.resize_mode)
    features, probs = infer.features_artefact(task, member), ensemble.part(task, ensemble_recipe, member)
    done = not probs.missing(task.shard_rows)
    todo = 0 if done else _missing(features, task)
    prepared = task.project.preprocess(recipe)
    seen = views.count(prepared, f"preprocess/{recipe}.yaml")  # of each image
    if todo:
        pixels = preprocess.artefact(task, recipe)
        seconds = _missing(pixels, task) * _seconds_per_decode(task, recipe)
        yield _row("preprocess", recipe, "images", pixels, task, seen * 3 * prepared.size**2, seconds), seconds
    state = weights_state(entry, task.project)
    per_image, dimensions = (
        _seconds_per_image(task, model_name, recipe) if todo and state == "on disk" else (None, 1024)
    )
    seconds = 0.0 if not todo else None if per_image is None else todo * seen * per_image
    dimensions *= seen if prepared.view_pooling == "confident" else 1
    row = _row("infer", member, "images", features, task, 2 * dimensions, seconds, todo)
    yield (row if state == "on disk" or not todo else (*row[:-1], f"unknown: {state}")), seconds
    if not done and not task.project.is_head(member):
        prompts = ensemble.prompts_of(task, ensemble_recipe, member).prompts
        new = infer.text_cache(task, model_name, prompts)[1]
        if new:
            yield ("infer", f"{model_name} prompts", len(prompts) - len(new), len(new), "prompts", "", ""), 0.0
    width = len(ensemble.member_columns(task, ensemble_recipe, member, ensemble.prompts_of)["prompts"])
    yield _row("infer", f"{member} probabilities", "images", probs, task, 4 * width, 0.0), 0.0


def _missing(artefact: Artefact, task: Task) -> int:
    return sum(stop - start for start, stop in artefact.missing(task.shard_rows))


def _row(stage, what, unit, artefact, task, bytes_per_row, seconds, todo=None) -> tuple:
    todo = _missing(artefact, task) if todo is None else todo
    gigabytes = f"{todo * bytes_per_row / 1e9:.3f}" if todo else ""
    duration = "" if not todo or seconds == 0 else "unknown" if seconds is None else _duration(seconds)
    return stage, what, len(artefact.ids) - todo, todo, unit, gigabytes, duration


def _seconds_per_decode(task: Task, recipe_name: str) -> float:
    """Of one image, with all threads at work."""
    recipe = task.project.preprocess(recipe_name)
    apply = compile_recipe(recipe, f"preprocess/{recipe_name}.yaml", task.place)
    rows = range(len(task.images.ids))
    sample = rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE]
    began = time.perf_counter()
    for row in sample:
        seen = problems.picture(task, row, recipe.draft_size)
        if seen.image is not None:
            apply(seen.image)
    return (time.perf_counter() - began) / len(sample) / task.threads


def _seconds_per_image(task: Task, model_name: str, recipe_name: str) -> tuple[float, int]:
    """Of the forward pass, and the numbers per image it gives; the fastest of some batches counts."""
    import torch

    from .. import models

    model = models.load(model_name, task.project.model(model_name), task.project.root, "image", task.device, task.dtype)
    pixels = torch.zeros(SAMPLE, 3, model.image_size, model.image_size, dtype=torch.uint8)
    taken = []
    for _ in range(4):  # the first ones choose and warm up kernels
        began = time.perf_counter()
        features = model.encode_image(pixels).cpu()
        taken.append(time.perf_counter() - began)
    return min(taken) / SAMPLE, features[0].numel()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
