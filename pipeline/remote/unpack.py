"""A file of features from elsewhere, checked against what is here and merged into the cache.

Nothing of the file is put into the cache as it is: numbers that pass are saved by this program, under what they are
made from here. The note that makes them count comes last, so an interrupted run leaves nothing that is used.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..chain import brought, canary, damage, features, text
from ..chain.stage import Stage
from ..chain.task import CompetitionTask, Runtime
from ..core.console import next_step, say
from ..core.errors import Damaged, Mismatch, NotFound, UserError, joint_kind, prefixed
from ..recipes.member import Member
from . import facts
from .features_file import FeaturesFile, ImageFeatures, TextFeatures, unit

DONE = (damage.FILLED, damage.FALLBACK, damage.SEVERAL)
SHOWN = 5  # spans of rows in a message
SCALES = 0.01  # by which two runs of one checkpoint may differ in its logit scale
Merge = Callable[[], int]  # merges one part that was found to be right; gives the rows that are missing after it


def unpack(runtime: Runtime, path: Path, competition: str | None = None) -> None:
    """Merge the file `path`; UserError for what is of other images, weights or recipes, after the rest is merged."""
    file = FeaturesFile.open(path)
    manifest, merges, refused = file.manifest, [], []
    if competition not in (None, manifest.competition):
        raise Mismatch(f"{path} was made for competition {manifest.competition}, not for {competition}")
    if manifest.data and not runtime.data:
        raise Mismatch(f"{path} was made with DATA={manifest.data}; give the same DATA=")
    task = CompetitionTask.of(runtime, manifest.competition)
    with prefixed(str(path)):
        _check_images(file, task)
    parts = [(one.member, partial(_of_images, file, task, one)) for one in manifest.images]
    parts += [(one.model, partial(_of_text, file, task, one)) for one in manifest.texts]
    for name, check in parts:
        try:
            with prefixed(f"{path}: {name}"):
                merges.append(check())
        except UserError as error:
            refused.append(error)
    left = sum(merge() for merge in merges)
    if refused:
        told = "\n".join(map(str, refused))
        raise joint_kind(refused)(told + "\nnothing of that was kept" + (", the rest was merged" if merges else ""))
    if not merges:
        raise NotFound(f"{path}: there are no features in it: nothing was encoded there")
    next_step(f"make {'pack' if left else 'submit'} COMPETITION={task.name}")


def _check_images(file: FeaturesFile, task: CompetitionTask) -> None:
    """UserError, naming the first that differs, when the file was made for other images."""
    listed = file.listed()
    ids, contents = list(task.images.ids), list(task.contents())
    if listed == {"ids": ids, "contents": contents}:
        return
    there, here = dict(zip(listed["ids"], listed["contents"], strict=True)), dict(zip(ids, contents, strict=True))
    odd = [name for name in (*here, *there) if here.get(name) != there.get(name)]
    first = (
        "" if not odd else f"; {odd[0]!r} " + ("differs" if odd[0] in here and odd[0] in there else "is in one only")
    )
    raise Mismatch(
        f"made for other images than those of {task.source}: {len(there)} there, {len(here)} here{first}. "
        "Nothing is merged; make the pack again"
    )


def _check_facts(here: facts.Facts, there: facts.Facts, model: str, recipe: str = "") -> None:
    if wrong := facts.difference(here, there, model, recipe):
        raise Mismatch(f"made with {wrong} than here; make the pack again")


def _of_images(file: FeaturesFile, task: CompetitionTask, part: ImageFeatures) -> Merge:
    """The features of a member; UserError for other weights or another recipe, and for what are no features."""
    member = task.project.member(part.member).tower
    _check_facts(facts.of_images(task, member), part.facts, member.model, member.preprocess)
    seen = features.stage(replace(task, dtype_name=part.dtype), member)
    shapes = {seen.read(*shard)["features"].shape[1:] for shard in seen.shards()[:1]}
    for shard in part.shards:
        array, rows = file.array(shard.name), f"rows {shard.start} to {shard.stop}"
        if not shard.start < shard.stop <= len(seen.ids):
            raise Damaged(f"{rows} of {len(seen.ids)} images")
        if array.dtype != np.float16 or array.ndim < 2 or len(array) != shard.stop - shard.start or not unit(array):
            raise Damaged(f"{rows} are no features: not as many, or not of length 1")
        shapes.add(array.shape[1:])
    if len(shapes) > 1:
        raise Damaged(f"features of several shapes: {sorted(map(tuple, shapes))}")
    for problem in part.problems:
        if problem.row >= len(seen.ids) or problem.done not in DONE or not problem.why.isprintable():
            raise Damaged(f"no record of damaged images: {problem.why[:100]!r}")
    return partial(_merge_images, file, task, part, member, seen)


def _merge_images(file: FeaturesFile, task: CompetitionTask, part: ImageFeatures, member: Member, seen: Stage) -> int:
    record, before = damage.stage(task, member.preprocess), seen.todo
    for shard in part.shards:
        for start, stop in record.missing(record.shard_rows, shard.start, shard.stop):
            found = [damage.Problem(one.row, one.done, one.why) for one in part.problems if start <= one.row < stop]
            damage.save(task, member.preprocess, start, stop, found)
        rows = torch.from_numpy(file.array(shard.name))
        for start, stop in seen.missing(seen.shard_rows, shard.start, shard.stop):
            seen.save(start, stop, features=rows[start - shard.start : stop - shard.start].clone())
    brought.note(task, member, seen.digest)
    left, total = seen.todo, len(seen.ids)
    spans = [f"{start} to {stop}" for start, stop in seen.missing(total)]
    gaps = ", ".join(spans[:SHOWN]) + (" ..." if spans[SHOWN:] else "")
    rest = f"{left} are missing: rows {gaps}; make pack packs them" if left else "make submit encodes none of them here"
    say("unpack", member, f"{before - left} images in {part.dtype} merged, {total - left} of {total} are here; {rest}")
    return left


def _of_text(file: FeaturesFile, task: CompetitionTask, part: TextFeatures) -> Merge:
    """The features of a model's prompts; UserError for other weights, and for what are no features."""
    _check_facts(facts.of_text(task, part.model), part.facts, part.model)
    array, one = file.array(part.name), replace(task, dtype_name=part.dtype)
    if array.dtype != np.float32 or array.ndim != 2 or len(array) != len(part.prompts) or not unit(array):
        raise Damaged(f"no features of {len(part.prompts)} prompts: not as many, or not of length 1")
    known, _ = text.cached(one, part.model, ())
    if known and known["features"].shape[1] != array.shape[1]:
        raise Mismatch(f"prompts of {array.shape[1]} dimensions, those here have {known['features'].shape[1]}")
    if known and abs(known["logit_scale"] - part.logit_scale) > SCALES:
        raise Mismatch(f"logit_scale {part.logit_scale:.4g}, that of the prompts here is {known['logit_scale']:.4g}")
    return partial(_merge_text, task, one, part, torch.from_numpy(array))


def _merge_text(task: CompetitionTask, one: CompetitionTask, part: TextFeatures, rows: torch.Tensor) -> int:
    if canary.PROMPT in part.prompts:
        canary.keep(one, part.model, part.dtype, rows[part.prompts.index(canary.PROMPT)].clone())
    added = text.add(one, part.model, part.prompts, text.Text(rows, part.logit_scale))
    brought.note(task, part.model, text.digest(one, part.model))
    say("unpack", part.model, f"{added} prompts in {part.dtype} merged, {len(part.prompts) - added} were here")
    return 0
