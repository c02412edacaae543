"""Stage preprocess: image files -> uint8 pixels of one preprocess recipe, in cache/<competition>/images/."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from . import cache
from .cache import Artefact
from .images import compile_recipe, decode
from .job import Job, progress, say


def artefact(job: Job, recipe_name: str) -> Artefact:
    """What the stage makes, computed or not: `pixels` uint8 (N, 3, S, S)."""
    recipe = job.project.preprocess(recipe_name)
    made_from = {"stage": "images", "format": cache.FORMAT, "preprocess": recipe.content(), "images": job.images_digest}
    return Artefact(job.cache / "images" / recipe_name, made_from, job.images.ids)


def batches(job: Job, recipe_name: str, start: int, stop: int) -> Iterator:
    """Pixels of images start..stop, uint8 (B, 3, S, S) at a time, from the cache or decoded and then cached.

    Decoding goes on in threads (Pillow works outside the interpreter lock) while the caller is busy with a batch.
    """
    result = artefact(job, recipe_name)
    at = start
    for first, last in [*result.missing(job.shard_rows, start, stop), (stop, stop)]:
        if at < first:
            yield from result.rows("pixels", at, first).split(job.batch)
        if first < last:
            yield from _decoded(job, recipe_name, result, first, last)
        at = last


def _decoded(job: Job, recipe_name: str, result: Artefact, start: int, stop: int) -> Iterator:
    import torch

    recipe = job.project.preprocess(recipe_name)
    apply = compile_recipe(recipe, f"preprocess/{recipe_name}.yaml")
    paths, made = job.images.paths()[start:stop], []
    pool = ThreadPoolExecutor(job.threads)
    try:
        rows = pool.map(lambda path: torch.from_numpy(apply(decode(path, recipe.draft_size))), paths)
        while batch := list(itertools.islice(rows, job.batch)):
            made.append(torch.stack(batch))
            yield made[-1]
        result.save(start, stop, pixels=torch.cat(made))
    finally:
        pool.shutdown(cancel_futures=True)


def run(job: Job, recipe_name: str) -> Artefact:
    """Make the pixels of all images, as far as they are not cached."""
    result, began, done = artefact(job, recipe_name), time.perf_counter(), 0
    with progress(f"preprocess {recipe_name}", "image", job) as bar:
        for start, stop, left in result.claim(job.shard_rows, job.rank, job.world):
            bar.total = done + left
            for batch in batches(job, recipe_name, start, stop):
                bar.update(len(batch))
                done += len(batch)
    reused = len(result.ids) - done
    if done:
        seconds = time.perf_counter() - began
        say("preprocess", recipe_name, f"{done} images in {seconds:.1f} s" + (f", {reused} reused" if reused else ""))
    else:
        say("preprocess", recipe_name, f"{reused} images reused")
    return result
