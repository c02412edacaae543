"""Checkpoints behind one interface: a model encodes images and prompts, and knows how it wants its pixels.

A family is one module here with `identity(entry, root, digests)` and `load(name, entry, root, tower, device, dtype)`.
"""

import importlib
from pathlib import Path
from typing import Literal, Protocol

from ..cache import FileDigests
from ..errors import UserError, did_you_mean
from ..recipes import ModelEntry

Tower = Literal["image", "text"]


class Model(Protocol):
    """One tower of a loaded checkpoint."""

    image_size: int
    logit_scale: float

    def encode_image(self, pixels):
        """uint8 (B, 3, S, S) on any device -> L2-normalised features (B, D), float32, on the CPU."""

    def encode_text(self, prompts: list[str]):
        """Finished sentences -> L2-normalised features (B, D), float32, on the CPU."""


def _family(name: str, entry: ModelEntry):
    known = [path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "hub"]
    if entry.family not in known:
        raise UserError(f"models.yaml: {name}: unknown family {entry.family!r}.{did_you_mean(entry.family, known)}")
    return importlib.import_module(f".{entry.family}", __name__)


def identity(name: str, entry: ModelEntry, root: Path) -> dict:
    """What decides the features of a checkpoint, as a JSON-able dict; nothing is loaded or downloaded.

    Weights on disk count by content, so moving or renaming them changes nothing; weights of a hub by name
    and revision.
    """
    source = {"family": entry.family, "architecture": entry.architecture}
    if entry.file:  # one of several in the same repository or folder
        source["file"] = entry.file
    if entry.weights is None:
        return {**source, "tag": entry.tag, "hub": entry.hub, "revision": entry.revision}
    path = root / entry.weights
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digests = FileDigests(root / "cache" / "weights.json")
    try:
        contents = {p.relative_to(path).as_posix(): digests.of(p) for p in files}
    except FileNotFoundError:
        raise UserError(f"models.yaml: {name}: no weights at {entry.weights}") from None
    finally:
        digests.remember()
    return {**source, "contents": contents}


def load(name: str, entry: ModelEntry, root: Path, tower: Tower, device, dtype: str) -> Model:
    """Load one tower of a checkpoint; UserError when it is not on disk and cannot be fetched.

    Device `cuda` (what DEVICE=auto becomes) leaves a family free to use all GPUs; `cuda:1` is that one alone.
    """
    return _family(name, entry).load(name, entry, root, tower, device, dtype)
