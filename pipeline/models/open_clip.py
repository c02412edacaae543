"""Family open_clip: any architecture of the open_clip library, with a published tag or a local checkpoint.

`weights` is a checkpoint file for `architecture`, or a folder in open_clip's own layout (open_clip_config.json
+ weights), which names its architecture itself.
"""

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core._torchvision import allow_import
from ..core.errors import Damaged, Mismatch, NotFound, did_you_mean
from ..core.files import atomic_file
from ..recipes import ModelEntry
from . import _checks, _preflight, _skeleton, hub
from ._placement import size_of
from ._tokenizers import library_tokenizer
from ._tower import DTYPES, Facts, Tokenizer, Tower
from .family import Family, Wanted

allow_import()
import open_clip  # noqa: E402  (needs the line above)
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD  # noqa: E402, F401
from open_clip.convert import convert_state_dict  # noqa: E402
from open_clip.model import convert_to_custom_text_state_dict, convert_weights_to_lp, resize_pos_embed  # noqa: E402
from open_clip.transform import PreprocessCfg  # noqa: E402
from open_clip.transformer import LayerNormFp32  # noqa: E402
from timm.utils import reparameterize_model  # noqa: E402

FAMILY = Family(weights=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"), trainable=True)
CONFIG_FILE = "open_clip_config.json"
TEXT_PARTS = (
    "text",
    "text_decoder",
    "transformer",
    "token_embedding",
    "positional_embedding",
    "ln_final",
    "text_projection",
    "attn_mask",
)
TRAINING = ("mean", "std", "resize_mode", "quick_gelu")


@dataclass(frozen=True)
class Source:
    """A checkpoint before its weights: the library's model config, how it was trained, where its tokenizer is."""

    config: dict
    training: dict  # mean, std, resize_mode, quick_gelu
    tokenizer: str  # a name that open_clip.get_tokenizer takes


def load(wanted: Wanted) -> Tower:
    """Check the checkpoint against its entry and the library's config, and load one tower of it."""
    source, model = built(wanted)
    facts = _checks.facts(wanted.entry, declared(wanted, source, model), wanted.where)
    text = source.config["text_cfg"]
    tokens = wanted.tower == "text" and library_tokenizer(wanted, text, source.tokenizer, facts.context_length)
    # training-time branches become one convolution, which is exact in float32 only
    fused = wanted.tower == "image" and any(hasattr(layer, "reparameterize") for layer in model.visual.modules())
    part = tower_of(model, wanted.tower)
    if not fused:
        lower(model, wanted.dtype)
        _checks.run_in_fp32(part, wanted.entry.fp32_layers, wanted.where)
    _preflight.memory(wanted.name, size_of(part), wanted.device, wanted.dtype)
    state = read(wanted, source, model)
    _skeleton.check(wanted, model, state)
    _skeleton.assign(wanted, part, state)
    if fused:
        part.visual = reparameterize_model(part.visual, inplace=True)
        lower(part, wanted.dtype)
        _checks.run_in_fp32(part, wanted.entry.fp32_layers, wanted.where)
    return make_tower(wanted, part, facts, state, tokens or None, fused)


def export(wanted: Wanted, tower: Tower, folder: Path) -> dict:
    """Write a folder of open_clip with the tower's present weights, the rest as it was; the entry that loads it."""
    source, model = built(wanted, tower.image_size)
    state = read(wanted, source, model)
    config = copy.deepcopy(source.config)
    config["vision_cfg"]["image_size"] = tower.image_size
    trained = {
        "size": tower.image_size,
        "mean": list(tower.mean),
        "std": list(tower.std),
        "resize_mode": tower.resize_mode,
        "interpolation": source.training.get("interpolation", "bicubic"),
    }
    there = bool(wanted.path and wanted.path.is_dir())  # then the folder has its tokenizer
    if there:
        hub.copy_small_files(wanted.path, folder)
    with atomic_file(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": trained}, indent=1) + "\n")
    kept = {key: tensor for key, tensor in state.items() if key in model.state_dict()}
    _skeleton.write(folder / FAMILY.weights[0], kept, tower.module.state_dict())
    tokenizer = wanted.entry.tokenizer or (None if there else config["text_cfg"].get("hf_tokenizer_name"))
    return {"weights": ".", **({"tokenizer": tokenizer} if tokenizer else {})}


def make_tower(
    wanted: Wanted, part: nn.Module, facts: Facts, state: dict, tokenizer: Tokenizer | None, fused: bool = False
) -> Tower:
    """A Tower around an open_clip model (families with other checkpoints of the same architecture use it too)."""
    return Tower(
        wanted,
        part,
        facts,
        forward_image=lambda module, pixels: module.encode_image(pixels),
        forward_text=lambda module, text: module.encode_text(text),
        tokenizer=tokenizer,
        logit_scale=float(state["logit_scale"].float().exp()),
        logit_bias=float(state["logit_bias"]) if "logit_bias" in state else None,
        fused=fused,
    )


def built(wanted: Wanted, size: int | None = None) -> tuple[Source, nn.Module]:
    """The checkpoint's source and its model without weights, for `size` pixels where positions are interpolated."""
    source = find(wanted)
    interpolated = "position_embedding" in wanted.entry.allow
    return source, skeleton(source.config, (size or wanted.entry.size) if interpolated else None)


def find(wanted: Wanted) -> Source:
    """The checkpoint's config and how it was trained: from its folder, its published tag, or the entry."""
    entry, path, where = wanted.entry, wanted.path, wanted.where
    if path and path.is_dir():
        try:
            own = json.loads((path / CONFIG_FILE).read_text())
            config = own["model_cfg"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{where}: {path} is no folder of open_clip: {type(error).__name__}: {error}") from None
        training = {**asdict(PreprocessCfg()), **own.get("preprocess_cfg", {})}  # the library's defaults
        return Source(config, {**training, "quick_gelu": bool(config.get("quick_gelu"))}, f"local-dir:{path}")
    known = open_clip.list_models()
    if entry.architecture not in known:
        raise NotFound(
            f"{where}: open_clip has no architecture {entry.architecture!r}."
            f"{did_you_mean(entry.architecture or '', known)}"
        )
    config = open_clip.get_model_config(entry.architecture)
    if entry.tag:
        return Source(config, _training(entry, where), entry.architecture)
    _checks.declared(entry, TRAINING, where)
    return Source(config, {fact: getattr(entry, fact) for fact in TRAINING}, entry.architecture)


def _training(entry: ModelEntry, where: str) -> dict:
    """How the checkpoint of a published tag was trained, from the library's table."""
    published = open_clip.get_pretrained_cfg(entry.architecture, entry.tag)
    if not published:
        tags = open_clip.list_pretrained_tags_by_model(entry.architecture)
        raise NotFound(f"{where}: {entry.architecture} has no tag {entry.tag!r}.{did_you_mean(entry.tag or '', tags)}")
    return {**published, "quick_gelu": bool(published.get("quick_gelu"))}


def declared(wanted: Wanted, source: Source, model: nn.Module) -> Facts:
    """What the checkpoint says of itself; UserError when the architecture contradicts how it was trained."""
    entry, where = wanted.entry, wanted.where
    trained, built = bool(source.training["quick_gelu"]), bool(source.config.get("quick_gelu"))
    if trained != built and "activation" not in entry.allow:
        other = "with '-quickgelu'" if trained else "without '-quickgelu'"
        raise Mismatch(
            f"{where}: activation: the checkpoint was trained with {'QuickGELU' if trained else 'GELU'}, "
            f"{entry.architecture} computes the other; take the architecture {other}, or keep it with "
            "'allow: [activation]'"
        )
    return Facts(
        size=_size(source.config, model, entry, where),
        mean=tuple(source.training["mean"]),
        std=tuple(source.training["std"]),
        resize_mode=source.training.get("resize_mode", "shortest"),
        context_length=source.config["text_cfg"].get("context_length", 77),
        quick_gelu=built,
    )


def _size(config: dict, model: nn.Module, entry: ModelEntry, where: str) -> int:
    """Pixels that the image tower is built for; the library's config must say the same, or the entry."""
    said = _square(config["vision_cfg"].get("image_size", 224))
    patches = getattr(getattr(model.visual, "trunk", None), "patch_embed", None)
    size = _square(getattr(patches, "img_size", None) or model.visual.image_size)
    if size != said and entry.size != size and "position_embedding" not in entry.allow:
        raise Mismatch(
            f"{where}: position_embedding: the config says image_size {said}, the positions are those of "
            f"{size}. Say which is right: 'size: {size}'"
        )
    return size


def _square(size) -> int:
    if isinstance(size, (tuple, list)):
        assert size[0] == size[1], f"not a square image size: {size}"
        return size[0]
    return size


def skeleton(config: dict, size: int | None = None) -> nn.Module:
    """The whole model with parameters that have no memory, in float32; `size` replaces the image size."""
    config = copy.deepcopy(config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    if size:
        vision["image_size"] = size
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    kind = open_clip.CLIP if not custom else open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    with _skeleton.skeletons():
        # LayerNormFp32 is LayerNorm that computes in float32 whatever its input
        return kind(**config, cast_dtype=torch.float16)


def lower(model: nn.Module, dtype: str) -> None:
    """Change the dtype as the library does: native towers keep norms and embeddings in float32.

    Not so CoCa's: the library leaves the queries of its pooler in float32, which its own half-precision keys refuse.
    """
    if dtype == "fp32":
        return
    if not isinstance(model.visual, open_clip.timm_model.TimmModel) and not getattr(model.visual, "attn_pool", None):
        # the library takes a projection of text for a parameter, and fails on DeCLIP's, which is a layer like others
        layer = isinstance(getattr(model, "text_projection", None), nn.Linear)
        for part in model.children() if layer else [model]:
            convert_weights_to_lp(part, DTYPES[dtype])
        return
    model.to(dtype=DTYPES[dtype])
    for layer in model.modules():
        if isinstance(layer, LayerNormFp32):
            layer.float()


def tower_of(model: nn.Module, tower: str) -> nn.Module:
    """The same model without its other tower; `model` stays whole."""
    return _skeleton.without(model, TEXT_PARTS if tower == "image" else ("visual", "text_decoder"))


def adapted(model: nn.Module, state: dict, allow: tuple[str, ...]) -> dict:
    """A checkpoint's tensors under the names and in the shapes of the installed library."""
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in state and getattr(model, scalar, None) is not None:
            state[scalar] = state[scalar].reshape(getattr(model, scalar).shape)
    state.pop("text.transformer.embeddings.position_ids", None)  # saved by transformers < 4.31
    if "position_embedding" in allow:
        resize_pos_embed(state, model)
    return state


def read(wanted: Wanted, source: Source, model: nn.Module) -> dict[str, Tensor]:
    """The checkpoint's tensors, as the installed library calls and shapes them."""
    if wanted.path:
        path = hub.weights(wanted)
    else:
        account, repo, file = (source.training.get("hf_hub", f"{wanted.entry.hub}/") + "/").split("/")[:3]
        path = hub.weights(wanted, f"{account}/{repo}", file)
    return adapted(model, _skeleton.read(wanted, path), wanted.entry.allow)
