"""Stage preprocess: image files -> uint8 pixels of one preprocess recipe, in cache/<competition>/images/."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from ..core.artefacts import Artefact
from ..core.console import progress, say
from ..core.digests import FORMAT, FileDigests
from ..core.errors import UserError
from ..images import views
from ..images.ops import compile_recipe, files
from . import problems
from .task import Task


def artefact(task: Task, recipe_name: str) -> Artefact:
    """What the stage makes, computed or not: `pixels` uint8 (N, 3, S, S), with V views (N, V, 3, S, S)."""
    recipe = task.project.preprocess(recipe_name)
    made_from = {
        "stage": "images",
        "format": FORMAT,
        "preprocess": recipe.content(),
        "images": task.images_digest,
        "decode": task.policy.content(),
    }
    if networks := files(recipe, task.project.root, f"preprocess/{recipe_name}.yaml"):
        made_from["networks"] = _contents(task, networks)
    return Artefact(task.cache / "images" / recipe_name, made_from, task.images.ids)


def _contents(task: Task, networks: list[Path]) -> list[str]:
    """Content digests of the networks that a recipe runs: other weights give other pixels."""
    digests = FileDigests(task.project.root / "cache" / "weights.json")
    found = [digests.of(path) for path in networks]
    digests.remember()
    return found


def shard_rows(task: Task, recipe_name: str) -> int:
    """Images per shard of pixels and features: fewer with views, so that a shard of pixels is as large as without."""
    recipe = task.project.preprocess(recipe_name)
    return max(1, task.shard_rows // views.count(recipe, f"preprocess/{recipe_name}.yaml"))


def batches(task: Task, recipe_name: str, start: int, stop: int) -> Iterator:
    """Pixels of images start..stop, uint8 (B, 3, S, S) at a time, from the cache or decoded and then cached.

    With V views (B, V, 3, S, S). Under a strict policy a damaged image ends it, with an error that names all damaged
    ones from there on; under one that falls back its pixels are black.

    Decoding goes on in threads (Pillow works outside the interpreter lock) while the caller is busy with a batch.
    """
    result = artefact(task, recipe_name)
    at = start
    for first, last in [*result.missing(shard_rows(task, recipe_name), start, stop), (stop, stop)]:
        if at < first:
            yield from result.rows("pixels", at, first).split(task.batch)
        if first < last:
            yield from _decoded(task, recipe_name, result, first, last)
        at = last


def _decoded(task: Task, recipe_name: str, result: Artefact, start: int, stop: int) -> Iterator:
    import torch

    recipe, made, found, at = task.project.preprocess(recipe_name), [], [], start
    apply = compile_recipe(recipe, f"preprocess/{recipe_name}.yaml", task.place)
    pool = ThreadPoolExecutor(task.threads)

    def pixels(row: int) -> tuple[torch.Tensor | UserError, list]:
        try:
            seen = problems.picture(task, row, recipe.draft_size)
            image = Image.new("RGB", (recipe.size, recipe.size)) if seen.image is None else seen.image
            return torch.from_numpy(apply(image)), problems.of_picture(row, seen)
        except UserError as error:
            return error, []

    try:
        rows = pool.map(pixels, range(start, stop))
        while batch := list(itertools.islice(rows, task.batch)):
            if any(isinstance(row, UserError) for row, _ in batch):
                rows = enumerate(pool.map(pixels, range(at, len(result.ids))), at)
                raise problems.refusal(task, ((row, why) for row, (why, _) in rows if isinstance(why, UserError)))
            made.append(torch.stack([row for row, _ in batch]))
            found += [problem for _, noted in batch for problem in noted]
            at += len(batch)
            yield made[-1]
        problems.save(task, recipe_name, start, stop, found)  # first: where there are pixels there is their record
        result.save(start, stop, pixels=torch.cat(made))
    finally:
        pool.shutdown(cancel_futures=True)


def run(task: Task, recipe_name: str) -> Artefact:
    """Make the pixels of all images, as far as they are not cached."""
    result, began, done = artefact(task, recipe_name), time.perf_counter(), 0
    with progress(f"preprocess {recipe_name}", "image") as bar:
        for start, stop, left in result.claim(shard_rows(task, recipe_name), task.rank, task.world):
            bar.total = done + left
            for batch in batches(task, recipe_name, start, stop):
                bar.update(len(batch))
                done += len(batch)
    reused = len(result.ids) - done
    if done:
        seconds = time.perf_counter() - began
        say("preprocess", recipe_name, f"{done} images in {seconds:.1f} s" + (f", {reused} reused" if reused else ""))
    else:
        say("preprocess", recipe_name, f"{reused} images reused")
    return result
