"""Family timm: image-only backbones, for features, probes and plots. They have no text tower.

`architecture` is any timm model, `tag` its published weights or `weights` a local file; `options` go to
timm.create_model, e.g. `pad_type: same`.
"""

from pathlib import Path

from ..core._torchvision import allow_import
from ..core.errors import NotFound, UserError, did_you_mean
from . import _checks, _skeleton, hub
from ._tower import DTYPES, Facts, Tower
from .family import Family, Wanted

allow_import()
import timm  # noqa: E402  (needs the line above)

FAMILY = Family(weights=("model.safetensors", "pytorch_model.bin"), text=False, trainable=True, any_size=True)
MODES = {"center": "shortest", "squash": "squash", "border": "longest"}


def load(wanted: Wanted) -> Tower:
    """Load a backbone without its classifier: features are the pooled ones before it."""
    entry = wanted.entry
    facts = _checks.facts(entry, declared(wanted), wanted.where)
    with _skeleton.skeletons():
        try:
            model = timm.create_model(entry.architecture, pretrained=False, **entry.options)
        except TypeError as error:
            raise UserError(f"{wanted.where}: options: {error}") from None
    state = _skeleton.read(wanted, _weights(wanted))
    _skeleton.check(wanted, model, state)
    model.reset_classifier(0)
    model.to(dtype=DTYPES[wanted.dtype])
    _skeleton.prepare(wanted, model)
    _skeleton.assign(wanted, model, state)
    return Tower(wanted, model, facts, forward_image=lambda module, pixels: module(pixels))


def export(wanted: Wanted, tower: Tower, folder: Path) -> dict:
    """Write the checkpoint with the tower's present weights, its old classifier with it; the entry that loads it."""
    state = _skeleton.read(wanted, _weights(wanted))
    _skeleton.write(folder / "model.safetensors", state, tower.module.state_dict())
    return {
        "architecture": wanted.entry.architecture,
        "weights": "model.safetensors",
        "size": tower.image_size,
        "mean": list(tower.mean),
        "std": list(tower.std),
        "resize_mode": tower.resize_mode,
    }


def _weights(wanted: Wanted) -> Path:
    entry = wanted.entry
    published = None if entry.weights else timm.get_pretrained_cfg(f"{entry.architecture}.{entry.tag}").hf_hub_id
    return hub.weights(wanted, published)


def declared(wanted: Wanted) -> Facts:
    """How the weights were trained: from timm's table for a tag, from the entry for a bare file."""
    entry, where = wanted.entry, wanted.where
    if not timm.is_model(entry.architecture or ""):
        known = timm.list_models()
        hint = did_you_mean(entry.architecture or "", known)
        raise NotFound(
            f"{where}: timm has no architecture {entry.architecture!r}."
            f"{hint if 'mean' in hint else ' timm.list_models() lists them'}"
        )
    if not entry.tag:
        _checks.declared(entry, ("size", "mean", "std", "resize_mode"), where)
        return Facts(entry.size, entry.mean, entry.std, entry.resize_mode)
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{entry.architecture}.*")]
    if entry.tag not in tags:
        raise NotFound(f"{where}: {entry.architecture} has no tag {entry.tag!r}.{did_you_mean(entry.tag, tags)}")
    published = timm.get_pretrained_cfg(f"{entry.architecture}.{entry.tag}")
    return Facts(published.input_size[-1], published.mean, published.std, MODES[published.crop_mode])
