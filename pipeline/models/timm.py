"""Family timm: image-only backbones, for features, probes and plots. They have no text tower.

`architecture` is any timm model, `tag` its published weights or `weights` a local file; `options` go to
timm.create_model, e.g. `pad_type: same`.
"""

from pathlib import Path

import torch

from ..core._torchvision import allow_import
from ..core.errors import UserError, did_you_mean
from ..recipes import ModelEntry
from . import _checks, _preflight, _skeleton, hub
from ._placement import size_of
from ._tower import DTYPES, Facts, Tower

allow_import()
import timm  # noqa: E402  (needs the line above)


def load(name: str, entry: ModelEntry, root: Path, tower: str, device: torch.device, dtype: str) -> Tower:
    """Load a backbone without its classifier: features are the pooled ones before it."""
    where = f"models.yaml: {name}"
    assert tower == "image", "models.load refuses the text tower of this family"
    facts = _checks.facts(entry, _facts(entry, where), where)
    with _skeleton.skeletons():
        try:
            model = timm.create_model(entry.architecture, pretrained=False, **entry.options)
        except TypeError as error:
            raise UserError(f"{where}: options: {error}") from None
    state = _skeleton.read(_weights_file(name, entry, root), where)
    _skeleton.check(model, state, where, entry.allow)
    model.reset_classifier(0)
    model.to(dtype=DTYPES[dtype])
    _checks.run_in_fp32(model, entry.fp32_layers, where)
    _preflight.memory(name, size_of(model), device, dtype)
    _skeleton.assign(model, state, device)
    return Tower(
        model,
        facts,
        where,
        device,
        dtype,
        forward_image=lambda module, pixels: module(pixels),
        allow=entry.allow,
        fp32_layers=entry.fp32_layers,
    )


def export(name: str, entry: ModelEntry, root: Path, tower: Tower, folder: Path) -> dict:
    """Write the checkpoint with the tower's present weights, its old classifier with it; the entry that loads it."""
    where = f"models.yaml: {name}"
    state = _skeleton.read(_weights_file(name, entry, root), where)
    _skeleton.write(folder / "model.safetensors", state, tower.module.state_dict())
    return {
        "architecture": entry.architecture,
        "weights": "model.safetensors",
        "size": tower.image_size,
        "mean": list(tower.mean),
        "std": list(tower.std),
        "resize_mode": tower.resize_mode,
    }


def _weights_file(name: str, entry: ModelEntry, root: Path) -> Path:
    if entry.weights:
        return root / entry.weights
    published = timm.get_pretrained_cfg(f"{entry.architecture}.{entry.tag}").hf_hub_id
    files = hub.weight_files(entry)
    return hub.fetch(name, entry.hub or published, files, entry.revision, entry.download_gb)


def _facts(entry: ModelEntry, where: str) -> Facts:
    """How the weights were trained: from timm's table for a tag, from the entry for a bare file."""
    if not timm.is_model(entry.architecture or ""):
        known = timm.list_models()
        hint = did_you_mean(entry.architecture or "", known)
        raise UserError(
            f"{where}: timm has no architecture {entry.architecture!r}."
            f"{hint if 'mean' in hint else ' timm.list_models() lists them'}"
        )
    if not entry.tag:
        _checks.declared(entry, ("size", "mean", "std", "resize_mode"), where)
        return Facts(entry.size, entry.mean, entry.std, entry.resize_mode)
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{entry.architecture}.*")]
    if entry.tag not in tags:
        raise UserError(f"{where}: {entry.architecture} has no tag {entry.tag!r}.{did_you_mean(entry.tag, tags)}")
    published = timm.get_pretrained_cfg(f"{entry.architecture}.{entry.tag}")
    mode = {"center": "shortest", "squash": "squash", "border": "longest"}[published.crop_mode]
    return Facts(published.input_size[-1], published.mean, published.std, mode)
