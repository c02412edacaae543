"""Stage preprocess: image files -> uint8 pixels of one preprocess recipe, in cache/<competition>/images/."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..core.artefacts import Artefact
from ..core.digests import FileDigests
from ..core.errors import UserError
from ..images import behaviour, views
from ..images.ops import compile_recipe, files
from . import damage
from .stage import Advance, Stage, declare
from .task import Task


def stage(task: Task, name: str) -> Stage:
    """`pixels` uint8 (N, 3, S, S) of the images, with V views (N, V, 3, S, S); shards are as large as without views."""
    recipe, where = task.project.preprocess(name), task.project.where("preprocess", name)
    made_from = {"preprocess": recipe.content(), "images": task.images_digest(), "decode": task.policy.content()}
    if networks := files(recipe, task.project.root, where):
        made_from["networks"] = _contents(task, networks)
    elif changed := task.once(("behaviour", name), lambda: behaviour.changed(recipe, where, _memo(task))):
        made_from["behaviour"] = changed
    seen = views.count(recipe, where)
    return declare(
        task,
        "images",
        name,
        made_from,
        verb="preprocess",
        begin=lambda _: Pixels(task, name),
        reused=f"{len(task.images.ids)} images reused",
        row_bytes=seen * 3 * recipe.size**2,
        shard_rows=max(1, task.shard_rows // seen),
        shared=True,
    )


def _memo(task: Task) -> Path:
    """Where it is remembered what recipes made of the images that are kept for that."""
    return task.project.root / "cache" / "behaviour.json"


def _contents(task: Task, networks: list[Path]) -> list[str]:
    """Content digests of the networks that a recipe runs: other weights give other pixels."""
    with FileDigests(task.project.root / "cache" / "weights.json") as digests:
        return [digests.of(path) for path in networks]


@dataclass(frozen=True)
class Pixels:
    """The work of the stage."""

    task: Task
    name: str

    def rows(self, start: int, stop: int, advance: Advance) -> None:
        for batch in batches(self.task, self.name, start, stop):
            advance(len(batch))

    def told(self, rows: int, seconds: float) -> str:
        reused = len(self.task.images.ids) - rows
        return f"{rows} images in {seconds:.1f} s" + (f", {reused} reused" if reused else "")


def batches(task: Task, name: str, start: int, stop: int) -> Iterator[Tensor]:
    """Pixels of images start..stop, uint8 (B, 3, S, S) at a time, from the cache or decoded and then cached.

    With V views (B, V, 3, S, S). Under a strict policy a damaged image ends it, with an error that names all damaged
    ones from there on; under one that falls back its pixels are black.

    Decoding goes on in threads (Pillow works outside the interpreter lock) while the caller is busy with a batch.
    """
    pixels, at = stage(task, name), start
    for first, last in [*pixels.missing(pixels.shard_rows, start, stop), (stop, stop)]:
        if at < first:
            yield from pixels.rows("pixels", at, first).split(task.batch)
        if first < last:
            yield from _decoded(task, name, pixels, first, last)
        at = last


def _decoded(task: Task, name: str, result: Artefact, start: int, stop: int) -> Iterator[Tensor]:
    recipe, made, found, at = task.project.preprocess(name), [], [], start
    apply = compile_recipe(recipe, task.project.where("preprocess", name), task.place)
    pool = ThreadPoolExecutor(task.threads)

    def pixels(row: int) -> tuple[Tensor | UserError, list]:
        try:
            seen = damage.picture(task, row, recipe.draft_size)
            image = Image.new("RGB", (recipe.size, recipe.size)) if seen.image is None else seen.image
            return torch.from_numpy(apply(image)), damage.of_picture(row, seen)
        except UserError as error:
            return error, []

    try:
        rows = pool.map(pixels, range(start, stop))
        while batch := list(itertools.islice(rows, task.batch)):
            if any(isinstance(row, UserError) for row, _ in batch):
                rows = enumerate(pool.map(pixels, range(at, len(result.ids))), at)
                raise damage.refusal(task, ((row, why) for row, (why, _) in rows if isinstance(why, UserError)))
            made.append(torch.stack([row for row, _ in batch]))
            found += [problem for _, noted in batch for problem in noted]
            at += len(batch)
            yield made[-1]
        damage.save(task, name, start, stop, found)  # first: where there are pixels there is their record
        result.save(start, stop, pixels=torch.cat(made))
    finally:
        pool.shutdown(cancel_futures=True)
