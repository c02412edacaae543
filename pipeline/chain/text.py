"""Stage infer, text side: prompts -> features, in cache/text/<model>/. The file of a model only grows.

A prompt's feature depends on nothing but the prompt, so after an edit only new prompts meet a model, and only its text
tower is loaded; prompts that are edited away stay for their return.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import models
from ..core import artefacts
from ..core.console import progress, say
from ..core.digests import FORMAT, digest_of
from ..core.errors import Damaged, PromptsTooLong, UserError
from ..core.files import lock
from ..recipes.prompts import PromptSet
from . import brought, canary
from .checkpoints import check_unchanged, checkpoint
from .features import Batches, first_not_finite
from .task import Runtime, Task


@dataclass(frozen=True)
class Text:
    """What the text tower gives for a prompt set: features (P, D) float32 in column order, and the scale."""

    features: Tensor
    logit_scale: float


def made_from(runtime: Runtime, model: str) -> dict:
    """What decides the features of a model's prompts; UserError for a model without a text tower."""
    models.check_text(model, runtime.project.model(model))
    return _made_in(runtime, model, _brought(runtime, model) or runtime.dtype)


def _made_in(runtime: Runtime, model: str, dtype: str) -> dict:
    facts = {**checkpoint(runtime, model, dtype), **models.text_identity(runtime.project.model(model))}
    return {"stage": "text", "format": FORMAT, **facts}


def _brought(runtime: Runtime, model: str) -> str | None:
    return brought.dtype(runtime, model, lambda dtype: digest_of(_made_in(runtime, model, dtype)))


def digest(runtime: Runtime, model: str) -> str:
    """Of `made_from`."""
    return digest_of(made_from(runtime, model))


def file(runtime: Runtime, model: str) -> Path:
    """Where the features of a model's prompts are kept."""
    return runtime.kept / "text" / model / f"{digest(runtime, model)}.pt"


def cached(runtime: Runtime, model: str, prompts: tuple[str, ...]) -> tuple[dict | None, list[str]]:
    """The cached features of a model's prompts, None where there are none, and those of `prompts` they lack."""
    path = file(runtime, model)
    known = artefacts.load(path, path.stem)
    have = set(known["prompts"]) if known else set()
    return known, [prompt for prompt in dict.fromkeys(prompts) if prompt not in have]


def of_prompts(runtime: Runtime, model: str, prompts: PromptSet) -> tuple[Text, int]:
    """Features of a prompt set, encoding those never seen before; also returns how many that were."""
    known, new = cached(runtime, model, prompts.prompts)
    if new:
        with lock(file(runtime, model).with_suffix(".lock")):  # one process encodes, the others find its work
            known, new = _encode_new(runtime, model, prompts)
    row = {prompt: number for number, prompt in enumerate(known["prompts"])}
    return Text(known["features"][[row[prompt] for prompt in prompts.prompts]], known["logit_scale"]), len(new)


def _encode_new(runtime: Runtime, name: str, prompts: PromptSet) -> tuple[dict, list[str]]:
    """Add the prompts that a text cache lacks; returns its content and the new prompts."""
    path = file(runtime, name)
    artefacts.load_or_discard(path, path.stem)
    known, new = cached(runtime, name, prompts.prompts)
    if not new:
        return known, new
    dtype = made_from(runtime, name)["dtype"]
    say("infer", name, f"encoding {len(new)} new prompts on {runtime.device}, {dtype}")
    load = functools.partial(_tower, runtime, name, dtype, len(new))
    model = runtime.once(("text tower", name, dtype), load) if runtime.keep_towers else load()
    rows = _encoded(runtime, model, name, new, prompts)
    if not math.isfinite(model.logit_scale or 0):
        raise Damaged(f"{name}: logit_scale is {model.logit_scale}: the weights are damaged, fetch them again")
    check_unchanged(runtime, name)
    return _saved(runtime, name, known, Text(rows, model.logit_scale), new), new


def _tower(runtime: Runtime, name: str, dtype: str, new: int) -> models.Model:
    """A model with its text tower alone, checked; UserError, with the way out, where this machine cannot have it."""
    entry = runtime.project.model(name)
    try:
        model = models.load(name, entry, runtime.project.root, "text", runtime.device, dtype)
    except UserError as error:
        if isinstance(runtime, Task) and _brought(runtime, name):
            pack = f"make pack COMPETITION={runtime.name}, with the same ENSEMBLE or MODEL"
            error.args = (f"{error}\nIts {new} new prompts can be encoded where its images were: {pack}",)
        raise
    check_unchanged(runtime, name)
    canary.check(runtime, name, "text", dtype, lambda: model.encode_text([canary.PROMPT]))
    return model


def _saved(runtime: Runtime, name: str, known: dict | None, found: Text, new: list[str]) -> dict:
    """The content of a text cache with new prompts, written."""
    before = known or {"prompts": [], "features": found.features[:0]}
    content = {
        "prompts": [*before["prompts"], *new],
        "features": torch.cat([before["features"], found.features]),
        "logit_scale": found.logit_scale,
    }
    artefacts.save(file(runtime, name), made_from(runtime, name), **content)
    return content


def add(runtime: Runtime, name: str, prompts: list[str], found: Text) -> int:
    """Keep features that were computed elsewhere, of prompts that have none here; returns how many those are."""
    path = file(runtime, name)
    with lock(path.with_suffix(".lock")):
        artefacts.load_or_discard(path, path.stem)
        known, new = cached(runtime, name, tuple(prompts))
        if new:
            rows = [prompts.index(prompt) for prompt in new]
            _saved(runtime, name, known, Text(found.features[rows], found.logit_scale), new)
    return len(new)


def _encoded(runtime: Runtime, model: models.Model, name: str, new: list[str], prompts: PromptSet) -> Tensor:
    """(len(new), D); UserError for prompts that are too long, and for features that are not finite."""
    rows = []
    with progress(f"infer {name} prompts", "prompt", len(new)) as bar:
        try:
            for encoded in Batches(runtime.batch).run(model.encode_text, new):
                rows.append(encoded.cpu())
                bar.update(len(encoded))
        except PromptsTooLong as error:
            error.args = (f"{', '.join(prompts.files_of(error.prompts))}: {error}",)
            raise
    found = torch.cat(rows)
    bad = first_not_finite(found)
    if bad is not None:
        raise Damaged(f"{name}: features of {new[bad]!r} are not finite: {model.why_not_finite([new[bad]])}")
    return found
