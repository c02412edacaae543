"""Family evaclip: EVA-CLIP, from the single fp16 file of its hub repository or a local copy (`weights`)."""

from pathlib import Path

from ..errors import UserError
from ..recipes import ModelEntry
from . import hub


def load(name: str, entry: ModelEntry, root: Path, tower: str, device, dtype: str):
    """Find or fetch the checkpoint; building the model from it is not supported yet (UserError)."""
    if entry.weights:
        path = root / entry.weights
    else:
        path = hub.fetch(name, entry.hub, entry.file, entry.revision, entry.download_gb)
    raise UserError(f"models.yaml: {name}: {path} is there, but family evaclip cannot be loaded yet")
