"""Verb plan: what a submission would reuse and compute, how much it would write, and about how long it would take.

Nothing is computed or downloaded. Times come from a short calibration on this machine: a few images through the
preprocess ops, and a batch through each image tower that is needed and on disk.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from .. import models
from ..chain import damage, features, text, threshold
from ..chain.feeding import in_processes
from ..chain.prompt_weights import prompts_of
from ..chain.stage import Stage
from ..chain.task import Runtime, Task
from ..core.console import tell
from ..core.tables import table
from ..images import views
from ..images.ops import compile_recipe
from ..recipes import Ensemble
from ._options import Arguments, checked_ensemble, competition
from .models import TO_DOWNLOAD, weights_state

HELP = "what a submission would reuse and compute, and about how long it would take"
USES = ("competition", "data", "ensemble", "model", "compute")
SAMPLE = 16  # images of a calibration
DRAFT_PAYS = 4  # times fewer pixels decoded: then it is advised
DIMENSIONS = 1024  # of a feature, where the model cannot be asked
HEADER = ("stage", "what", "cached", "to do", "", "GB to write", "time")


@dataclass(frozen=True)
class Row:
    """One line: rows cached and to do, bytes to write of each; seconds are None where they cannot be known yet."""

    stage: str
    what: str
    cached: int
    todo: int
    unit: str = "images"
    row_bytes: int = 0
    seconds: float | None = 0.0
    unknown: str = field(default="unknown", kw_only=True)
    download: str = field(default="", kw_only=True)  # the model that must be downloaded for it

    def cells(self) -> tuple:
        gigabytes = f"{self.todo * self.row_bytes / 1e9:.3f}" if self.todo and self.row_bytes else ""
        duration = "" if not self.todo or self.seconds == 0 else self.unknown
        if self.todo and self.seconds:
            duration = _duration(self.seconds)
        return self.stage, self.what, self.cached, self.todo, self.unit, gigabytes, duration


def run(runtime: Runtime, args: Arguments) -> None:
    task = competition(runtime, args)
    show(task, checked_ensemble(task, args))


def show(task: Task, name: str) -> None:
    """Print the table for one ensemble recipe."""
    plan = Plan(task, name)
    rows = list(plan.rows())
    print(table(HEADER, [row.cells() for row in rows]))
    if not any(row.todo for row in rows):
        tell("nothing to compute")
        return
    unknown = any(row.todo and row.seconds is None for row in rows)
    sizes = [
        models.hub.download_gb(task.project.model(model)) for model in {row.download for row in rows if row.download}
    ]
    if sizes:
        more = " or more" if None in sizes else ""
        tell(f"{sum(size or 0 for size in sizes):.1f} GB{more} to download: {len(sizes)} models")
    known, place = sum(row.seconds or 0 for row in rows), f"on {task.device}, {task.dtype}"
    if known or not unknown:
        tell(f"about {_duration(known)} {place}" + (", and what is unknown" if unknown else ""))
    else:
        tell(f"how long it takes {place} is unknown")
    for line in plan.advice:
        tell(line)


def _after(state: str) -> str:
    """When it can be known how long something takes."""
    return state.replace(TO_DOWNLOAD, "after") if state.startswith(TO_DOWNLOAD) else f"unknown: {state}"


@dataclass(frozen=True)
class Plan:
    """The stages of a recipe with what each would have to compute; `advice` is found on the way."""

    task: Task
    name: str
    advice: list[str] = field(default_factory=list)

    @cached_property
    def recipe(self) -> Ensemble:
        return self.task.project.ensemble(self.name)

    def rows(self) -> Iterator[Row]:
        ends = [threshold.stage(self.task, self.name)]
        if self.recipe.witness:
            ends.insert(0, features.stage(self.task, self.recipe.witness))
        todo = _todo(ends)
        for stage in {stage.path: stage for end in ends for stage in end.walk()}.values():
            match stage.made_from["stage"]:
                case "images":
                    if todo[stage.path]:
                        yield self._decoding(stage, todo)
                case "features":
                    yield self._encoding(stage, todo[stage.path])
                case "probs":
                    yield from self._prompts(stage, todo[stage.path])
                    yield _row(stage, todo, " probabilities")
                case _:
                    yield _row(stage, todo)

    def _decoding(self, stage: Stage, todo: dict) -> Row:
        recipe, count = self.task.project.preprocess(stage.subject), todo[stage.path]
        each, pixels = _per_decode(self.task, stage.subject, recipe.draft_size)
        drafted, fewer = (each, pixels) if recipe.draft else _per_decode(self.task, stage.subject, 2 * recipe.size)
        if fewer * DRAFT_PAYS <= pixels:
            self.advice.append(
                f"{self.task.project.where('preprocess', stage.subject)}: with 'draft: true' decoding takes "
                f"{_duration(count * drafted)} instead of {_duration(count * each)}, at slightly other pixels"
            )
        how = f" by {self.task.threads} processes" if in_processes(self.task, stage.subject, count) else ""
        return _row(stage, todo, how, seconds=count * each)

    def _encoding(self, stage: Stage, todo: int) -> Row:
        project, member = self.task.project, stage.subject
        entry, recipe = project.model(member.model), project.preprocess(member.preprocess)
        features.check_recipe(project, member, entry.size, entry.resize_mode)
        seen = views.count(recipe, project.where("preprocess", member.preprocess))  # of each image
        state, per_image, dimensions = weights_state(entry, project), None, DIMENSIONS
        loading = 0.0
        if todo and state == "on disk":
            loading, per_image, dimensions = _seconds_per_image(self.task, member.model)
        seconds = None if per_image is None else loading + todo * seen * per_image
        row_bytes = 2 * dimensions * (seen if recipe.view_pooling == "confident" else 1)
        cached = len(stage.ids) - todo
        unknown, download = _after(state), member.tower.model if todo and state.startswith(TO_DOWNLOAD) else ""
        return Row("infer", member, cached, todo, "images", row_bytes, seconds, unknown=unknown, download=download)

    def _prompts(self, stage: Stage, todo: int) -> Iterator[Row]:
        if not todo or stage.subject.is_head:
            return
        prompts = prompts_of(self.task, self.recipe, stage.subject).prompts
        name = stage.subject.model
        new = len(text.cached(self.task, name, prompts)[1])
        if new:
            state = weights_state(self.task.project.model(name), self.task.project)
            seconds = _seconds_to_load_text(self.task, name) if state == "on disk" else None
            more = {"unknown": _after(state), "download": name if state.startswith(TO_DOWNLOAD) else ""}
            cached = len(prompts) - new
            yield Row("infer", f"{name} prompts", cached, new, "prompts", 0, seconds, **more)


def _todo(ends: Sequence[Stage]) -> dict:
    """{path of a stage: rows of it that must be computed}; none of a stage that nothing needs."""
    found: dict = {}

    def need(stage: Stage, wanted: bool) -> None:
        found[stage.path] = max(found.get(stage.path, 0), stage.todo if wanted else 0)
        for above in stage.inputs:
            need(above, found[stage.path] > 0)

    for end in ends:
        need(end, True)
    return found


def _row(stage: Stage, todo: dict, what: str = "", seconds: float = 0.0) -> Row:
    rows = todo[stage.path]
    cached = len(stage.ids) - rows
    return Row(stage.verb, f"{stage.subject}{what}", cached, rows, "images", stage.row_bytes, seconds)


def _per_decode(task: Task, recipe_name: str, draft_size: int | None) -> tuple[float, int]:
    """Seconds of one image, with all threads at work; and the pixels of some as they are decoded."""
    recipe = task.project.preprocess(recipe_name)
    apply = compile_recipe(recipe, task.project.where("preprocess", recipe_name), task.place)
    rows = range(len(task.images.ids))
    sample = rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE]
    began, pixels = time.perf_counter(), 0
    for row in sample:
        seen = damage.picture(task, row, draft_size)
        if seen.image is not None:
            apply(seen.image)
            pixels += seen.image.width * seen.image.height
    return (time.perf_counter() - began) / len(sample) / task.threads, pixels


def _seconds_to_load_text(task: Task, name: str) -> float:
    """Of a text tower, which takes longer than the prompts do."""
    began = time.perf_counter()
    models.load(name, task.project.model(name), task.project.root, "text", task.device, task.dtype)
    return time.perf_counter() - began


def _seconds_per_image(task: Task, model_name: str) -> tuple[float, float, int]:
    """To load the tower; of a forward pass, the fastest of some batches; and the numbers per image it gives."""
    began = time.perf_counter()
    model = models.load(model_name, task.project.model(model_name), task.project.root, "image", task.device, task.dtype)
    loading = time.perf_counter() - began
    pixels = torch.zeros(SAMPLE, 3, model.image_size, model.image_size, dtype=torch.uint8)
    taken = []
    for _ in range(4):  # the first ones choose and warm up kernels
        began = time.perf_counter()
        features = model.encode_image(pixels).cpu()
        taken.append(time.perf_counter() - began)
    return loading, min(taken) / SAMPLE, features[0].numel()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
