"""Checkpoints behind one interface: a model encodes images and prompts, and knows how it wants its pixels.

What lives here: one file per family (start with timm.py, the shortest), and what they share: family.py (traits, how
one is added), hub.py (files of the model hub), _intact.py (whether they are whole), _checks.py (self-checks),
_skeleton.py and _weights.py (models without memory, filled from mapped files), _placement.py (over several devices),
_tower.py (what is run). heads/ is what is trained on features. Imports core, recipes and maths; this file, family.py
and hub.py stay free of torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ..core.digests import FileDigests
from ..core.errors import Mismatch, NotFound
from ..recipes import HEAD, ModelEntry
from . import family, hub, stored
from .family import Wanted

if TYPE_CHECKING:
    import torch

Tower = Literal["image", "text"]

# what an entry says that holds for the same model with other weights as well
KEPT = (
    "size",
    "mean",
    "std",
    "resize_mode",
    "context_length",
    "quick_gelu",
    "logit_scale",
    "parameters",
    "licence",
    "options",
    "fp32_layers",
)


class Model(Protocol):
    """One tower of a loaded checkpoint."""

    image_size: int  # pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str
    context_length: int | None  # tokens
    logit_scale: float | None
    logit_bias: float | None  # of models trained with a sigmoid
    dtype: str
    device: "torch.device"  # where its inputs go

    def encode_image(self, pixels):
        """uint8 (B, 3, S, S) on any device -> L2-normalised features (B, D) or (B, Q, D), float32."""

    def encode_text(self, prompts: list[str]):
        """Finished sentences -> L2-normalised features (B, D), float32."""

    def compile(self, batch: int) -> None:
        """Have the image tower compiled for batches of this size, when the first of them comes."""

    def batch_size(self, limit: int) -> int:
        """Images per forward pass, `limit` at most: on a GPU what its free memory holds."""

    def why_not_finite(self, inputs) -> str:
        """What is wrong with inputs (pixels or prompts) whose features are not finite, and the fix."""


def has_text(name: str, entry: ModelEntry) -> bool:
    """Whether the entry's family has a text tower."""
    return family.traits(name, entry).text


def check_text(name: str, entry: ModelEntry) -> None:
    """UserError when the family has no text tower; told before any image is encoded in vain."""
    if entry.family == HEAD:
        raise Mismatch(
            f"{name} is a trained head: it gives the classes it was trained on, from cached features of "
            f"{entry.base}, and takes no prompts. It works in benchmarks and ensembles"
        )
    if not has_text(name, entry):
        raise Mismatch(
            f"{entry.written_in}: {name}: family {entry.family} has image towers only, for features, probes and "
            "plots; prompts need a model with a text tower, e.g. of family open_clip"
        )


def identity(name: str, entry: ModelEntry, root: Path) -> dict:
    """What decides the features of a checkpoint, as a JSON-able dict; nothing is loaded or downloaded.

    Weights on disk count by content, so moving or renaming them changes nothing, those at a URL by their sum; weights
    of a hub by name and revision, and by commit once that is another than at first. Of the declared facts only those
    count that may replace the checkpoint's own.
    """
    family.traits(name, entry)  # a mistake in the entry is told before anything else
    source = {"family": entry.family, "architecture": entry.architecture}
    used = {key: getattr(entry, key) for key in ("base", "file", "options", "fp32_layers")}
    bare = entry.weights is not None and entry.tag is None  # then the entry says how its pixels are made
    replaced = {"mean", "std"} if bare else {"mean", "std"} & set(entry.allow)
    replaced |= {"size"} if "position_embedding" in entry.allow else set()
    used |= {fact: getattr(entry, fact) for fact in replaced}
    source |= {key: value for key, value in used.items() if value not in (None, {}, ())}
    if entry.weights is None:
        moved = hub.moved_to(entry, root)
        source |= {"commit": moved} if moved else {}
        return {**source, "tag": entry.tag, "hub": entry.hub, "revision": entry.revision}
    source |= {"tag": entry.tag} if entry.tag else {}
    if entry.sha256:
        return {**source, "sha256": entry.sha256}
    path = root / entry.weights
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    with FileDigests(root / "cache" / "weights.json") as digests:
        try:
            contents = {p.relative_to(path).as_posix(): digests.of(p) for p in files}
        except FileNotFoundError:
            raise NotFound(f"{entry.written_in}: {name}: no weights at {entry.weights}") from None
    return {**source, "contents": contents}


def text_identity(entry: ModelEntry) -> dict:
    """What, besides `identity`, decides text features and their scale; image features do not depend on it."""
    used = {"tokenizer": entry.tokenizer, "logit_scale": entry.logit_scale}
    traits = family.traits(entry.family, entry)
    if traits.shorter_context:
        used["context_length"] = entry.context_length
    if traits.reading > 1:
        used["reading"] = traits.reading
    return {key: value for key, value in used.items() if value is not None}


def load(name: str, entry: ModelEntry, root: Path, tower: Tower, device, dtype: str) -> Model:
    """Load one tower of a checkpoint; UserError when it is not on disk and cannot be fetched.

    Device `cuda` (what DEVICE=auto becomes) leaves a family free to use all GPUs; `cuda:1` is that one alone.
    """
    family.traits(name, entry)
    if tower == "text" or entry.family == HEAD:
        check_text(name, entry)
    stored.fetch(name, entry, root)
    return family.module(entry).load(Wanted(name, entry, root, tower, device, dtype))


def check_trainable(name: str, entry: ModelEntry) -> None:
    """UserError when weights of the family cannot be written back, told before anything slow."""
    if not family.traits(name, entry).trainable:
        able = ", ".join(sorted(family.having(trainable=True)))
        raise Mismatch(
            f"{entry.written_in}: {name}: family {entry.family} cannot be fine-tuned; those that can: {able}"
        )


def export(name: str, entry: ModelEntry, root: Path, tower, folder: Path) -> dict:
    """Write the checkpoint of `entry` with the present weights of its image tower into `folder` (below `root`).

    It has the family's own layout. Returned is an entry that loads it, its paths from `root`.
    """
    made = family.module(entry).export(Wanted(name, entry, root), tower, folder)
    made["weights"] = (folder.relative_to(root) / made["weights"]).as_posix()
    kept = {key: getattr(entry, key) for key in KEPT}
    kept["allow"] = [check for check in entry.allow if check != "position_embedding"]
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}
    return {
        "family": entry.family,
        **{key: value for key, value in plain.items() if value not in (None, [], {}, "")},
        **made,
    }
