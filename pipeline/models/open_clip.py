"""Family open_clip: any architecture of the open_clip library, with a published tag or a local checkpoint.

`weights` is a checkpoint file for `architecture`, or a folder in open_clip's own layout (open_clip_config.json
+ weights), which names its architecture itself.
"""

from pathlib import Path

import torch

from .._torchvision import allow_import
from ..errors import UserError, did_you_mean
from ..recipes import ModelEntry
from ..zeroshot import normalise
from . import hub

allow_import()
import open_clip  # noqa: E402  (needs the line above)

TEXT_PARTS = ("text", "text_decoder", "transformer", "token_embedding", "positional_embedding", "ln_final")


class OpenClip:
    """One tower of an open_clip model."""

    def __init__(self, model, tokenizer, tower: str, device: torch.device, dtype: str):
        self.image_size = _square(model.visual.image_size)
        self.logit_scale = float(model.logit_scale.detach().exp())
        preprocess = model.visual.preprocess_cfg
        self.mean, self.std = (torch.tensor(preprocess[k], device=device).view(3, 1, 1) for k in ("mean", "std"))
        self.tokenizer, self.device = tokenizer, device
        self.input_dtype = open_clip.get_input_dtype(dtype) or torch.float32
        for part in TEXT_PARTS if tower == "image" else ("visual",):
            if hasattr(model, part):
                delattr(model, part)
        self.model = model.to(device).eval()

    @torch.inference_mode()
    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = pixels.to(self.device, non_blocking=True).float() / 255
        features = self.model.encode_image(((scaled - self.mean) / self.std).to(self.input_dtype))
        return normalise(features).cpu()

    @torch.inference_mode()
    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        return normalise(self.model.encode_text(self.tokenizer(prompts).to(self.device))).cpu()


def load(name: str, entry: ModelEntry, root: Path, tower: str, device: torch.device, dtype: str) -> OpenClip:
    """Read the checkpoint with open_clip's strict loading and keep one tower."""
    where = f"models.yaml: {name}"
    path = root / entry.weights if entry.weights else None
    if path and path.is_dir():
        source, options = f"local-dir:{path}", {}
    else:
        source, options = _architecture(entry, where), _pretrained(name, entry, path, where)
    try:
        # a float32 skeleton on the CPU first: the other tower never reaches the device
        model = open_clip.create_model(source, precision=dtype, device="cpu", **options)
        tokenizer = open_clip.get_tokenizer(source) if tower == "text" else None
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        raise UserError(f"{where}: {error}") from None
    return OpenClip(model, tokenizer, tower, device, dtype)


def _architecture(entry: ModelEntry, where: str) -> str:
    known = open_clip.list_models()
    if entry.architecture not in known:
        raise UserError(f"{where}: open_clip has no architecture {entry.architecture!r}."
                        f"{did_you_mean(entry.architecture or '', known)}")  # fmt: skip
    return entry.architecture


def _pretrained(name: str, entry: ModelEntry, path: Path | None, where: str) -> dict:
    """create_model's arguments for a local file, or for a published tag with that tag's own preprocessing."""
    if path:
        return {"pretrained": str(path)}
    published = open_clip.get_pretrained_cfg(entry.architecture, entry.tag)
    if not published:
        tags = open_clip.list_pretrained_tags_by_model(entry.architecture)
        raise UserError(f"{where}: {entry.architecture} has no tag {entry.tag!r}.{did_you_mean(entry.tag or '', tags)}")
    if bool(published.get("quick_gelu")) != bool(open_clip.get_model_config(entry.architecture).get("quick_gelu")):
        raise UserError(f"{where}: {entry.tag!r} was trained with another activation than {entry.architecture}; "
                        "take the architecture with (or without) '-quickgelu'")  # fmt: skip
    repo, _, file = published["hf_hub"].partition("/")
    repo, file = f"{repo}/{file.partition('/')[0]}", file.partition("/")[2] or "open_clip_model.safetensors"
    own = {key: published[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in published}
    local = hub.fetch(name, repo, file, entry.revision, entry.download_gb)
    return {"pretrained": str(local), "force_preprocess_cfg": own}


def _square(size) -> int:
    if isinstance(size, (tuple, list)):
        assert size[0] == size[1], f"not a square image size: {size}"
        return size[0]
    return size
