"""Stage preprocess: image files -> uint8 pixels of one preprocess recipe, in cache/<competition>/images/."""

import time
from concurrent.futures import ThreadPoolExecutor

from . import cache
from .cache import Artefact
from .errors import UserError
from .images import compile_recipe
from .job import Job, say


def artefact(job: Job, recipe_name: str) -> Artefact:
    """What the stage makes, computed or not: `pixels` uint8 (N, 3, S, S), with V views (N, V, 3, S, S)."""
    recipe = job.project.preprocess(recipe_name)
    made_from = {"stage": "images", "format": cache.FORMAT, "preprocess": recipe.content(), "images": job.images_digest}
    return Artefact(job.cache / "images" / recipe_name, made_from, job.images.ids)


def run(job: Job, recipe_name: str, start: int = 0, stop: int | None = None) -> Artefact:
    """Make the pixels of images start..stop (all by default), as far as they are not cached.

    UserError names all damaged images; shards without one are kept.
    """
    import torch
    from tqdm import tqdm

    result = artefact(job, recipe_name)
    stop = len(result.ids) if stop is None else stop
    apply = compile_recipe(job.project.preprocess(recipe_name), f"preprocess/{recipe_name}.yaml")
    gaps = [(a, b) for a, b in result.missing(job.shard_rows) if a < stop and b > start]
    todo, began = sum(b - a for a, b in gaps), time.perf_counter()
    if not todo:
        say("preprocess", recipe_name, f"{stop - start} images reused")
        return result
    damaged: list[str] = []

    def pixels(row: int) -> torch.Tensor | UserError:
        try:
            image = job.images.open(row)
        except UserError as error:
            return error
        return torch.from_numpy(apply(image))

    # Pillow works outside the interpreter lock, so threads use all cores
    with (
        ThreadPoolExecutor(job.threads) as pool,
        tqdm(total=todo, desc=f"preprocess {recipe_name}", unit="image", disable=None) as bar,
    ):
        try:
            for a, b in gaps:
                rows, before = [], len(damaged)
                for row in pool.map(pixels, range(a, b)):
                    if isinstance(row, UserError):
                        damaged.append(str(row))
                    elif len(damaged) == before:
                        rows.append(row)
                    bar.update()
                if len(damaged) == before:
                    result.save(a, b, pixels=torch.stack(rows))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if damaged:
        raise UserError("\n".join([*damaged, f"{len(damaged)} images cannot be read"] if damaged[1:] else damaged))
    reused = f", {stop - start - todo} reused" if stop - start > todo else ""
    say("preprocess", recipe_name, f"{todo} images in {time.perf_counter() - began:.1f} s{reused}")
    return result
