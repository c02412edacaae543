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
from ..core.errors import Damaged, PromptsTooLong
from ..core.files import lock
from ..recipes.prompts import PromptSet
from . import canary
from .checkpoints import check_unchanged, checkpoint
from .features import Batches, first_not_finite
from .task import Runtime


@dataclass(frozen=True)
class Text:
    """What the text tower gives for a prompt set: features (P, D) float32 in column order, and the scale."""

    features: Tensor
    logit_scale: float


def made_from(runtime: Runtime, model: str) -> dict:
    """What decides the features of a model's prompts; UserError for a model without a text tower."""
    entry = runtime.project.model(model)
    models.check_text(model, entry)
    return {"stage": "text", "format": FORMAT, **checkpoint(runtime, model), **models.text_identity(entry)}


def digest(runtime: Runtime, model: str) -> str:
    """Of `made_from`."""
    return digest_of(made_from(runtime, model))


def file(runtime: Runtime, model: str) -> Path:
    """Where the features of a model's prompts are kept."""
    return runtime.project.root / "cache" / "text" / model / f"{digest(runtime, model)}.pt"


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
    say("infer", name, f"encoding {len(new)} new prompts on {runtime.device}, {runtime.dtype}")
    load = functools.partial(_tower, runtime, name)
    model = runtime.once(("text tower", name), load) if runtime.keep_towers else load()
    rows = _encoded(runtime, model, name, new, prompts)
    if not math.isfinite(model.logit_scale or 0):
        raise Damaged(f"{name}: logit_scale is {model.logit_scale}: the weights are damaged, fetch them again")
    check_unchanged(runtime, name)
    before = known or {"prompts": [], "features": rows[:0]}
    content = {
        "prompts": [*before["prompts"], *new],
        "features": torch.cat([before["features"], rows]),
        "logit_scale": model.logit_scale,
    }
    artefacts.save(path, made_from(runtime, name), **content)
    return content, new


def _tower(runtime: Runtime, name: str) -> models.Model:
    """A model with its text tower alone, checked."""
    entry = runtime.project.model(name)
    model = models.load(name, entry, runtime.project.root, "text", runtime.device, runtime.dtype)
    check_unchanged(runtime, name)
    canary.check(runtime, name, "text", lambda: model.encode_text([canary.PROMPT]))
    return model


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
