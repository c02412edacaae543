"""Whether a tower still gives the features that are cached: one image and one prompt are encoded whenever it is loaded.

Another version of a library, or another machine, may give other features for the same weights. What differs beyond the
noise of the dtype is said; the caches stay, for only the user knows which of the two is right.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..core import artefacts
from ..core.console import say, warn
from ..core.digests import FORMAT, digest_of
from ..core.errors import Mismatch, Unavailable
from ..models import Model
from .checkpoints import checkpoint
from .task import Runtime

PROMPT = "a photo of a cat"
# distance from 1 of the cosine between features of two good implementations of one tower
NOISE = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 1e-2}


def pixels(size: int) -> Tensor:
    """A smooth image that no file holds, uint8 (1, 3, size, size)."""
    ramp = torch.linspace(0, 255, size)
    return torch.stack([ramp.expand(size, size), ramp.flip(0).expand(size, size), ramp[:, None].expand(size, size)])[
        None
    ].to(torch.uint8)


def check(runtime: Runtime, model: str, tower: str, dtype: str, encode: Callable[[], Tensor]) -> None:
    """Compare what a tower loaded in `dtype` gives with what it gave first; a warning where that differs."""
    found = encode().float().cpu().flatten()
    if not found.isfinite().all():
        return  # told with the first image or prompt that it concerns
    known = _known_or_kept(runtime, model, tower, dtype, found)
    cosine = torch.nn.functional.cosine_similarity(known, found, dim=0).item()
    if 1 - cosine > NOISE[dtype]:
        warn(
            f"{model}: its {tower} tower gives other features here than those in the cache (cosine {cosine:.4f}): a "
            "library has changed, or the machine. What is cached is used; to compute all of it again remove "
            f"cache/text/{model}, cache/canaries/{model} and cache/*/features/{model}@*"
        )


def compiled(name: str, model: Model, batch: int) -> None:
    """Compile a model's image tower for batches of this size; UserError where that fails, or gives other features."""
    images = pixels(model.image_size).expand(batch, -1, -1, -1)
    plain = model.encode_image(images[:1]).float().cpu().flatten()
    say("infer", name, f"its image tower is compiled for batches of {batch}")
    model.compile(batch)
    try:
        found = model.encode_image(images)[:1].float().cpu().flatten()
    except Exception as error:  # of the compiler's many parts, each with errors of its own
        why = (str(error).splitlines() or [""])[0]
        raise Unavailable(f"COMPILE=1: {name}: {type(error).__name__}: {why}. Leave COMPILE out") from None
    cosine = torch.nn.functional.cosine_similarity(plain, found, dim=0).item()
    if plain.isfinite().all() and not 1 - cosine <= NOISE[model.dtype]:
        raise Mismatch(f"COMPILE=1: {name}: compiled it gives other features (cosine {cosine:.4f}); leave COMPILE out")


def keep(runtime: Runtime, model: str, dtype: str, feature: Tensor) -> None:
    """What a text tower made of PROMPT elsewhere: the one here is compared with it, if none was loaded before."""
    _known_or_kept(runtime, model, "text", dtype, feature)


def _known_or_kept(runtime: Runtime, model: str, tower: str, dtype: str, found: Tensor) -> Tensor:
    """What a tower gave first (D,); that is `found` where nothing of that shape is known."""
    made_from = {"stage": "canary", "format": FORMAT, "tower": tower, **checkpoint(runtime, model, dtype)}
    path = runtime.project.root / "cache" / "canaries" / model / f"{tower}-{digest_of(made_from)}.pt"
    known = artefacts.load(path, digest_of(made_from))
    if known is None or known["features"].shape != found.shape:
        artefacts.save(path, made_from, features=found)
        return found
    return known["features"]
