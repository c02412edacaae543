"""Family transformers: dual encoders of the transformers library, from the hub or a local folder (`weights`).

The folder has config.json, preprocessor_config.json, tokenizer files and safetensors or .bin weights, as
`save_pretrained` and the hub have it. The model type of config.json decides which of the kinds below it is.
"""

import json
import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core._torchvision import allow_import
from ..core.errors import UserError, did_you_mean
from ..recipes import ModelEntry
from . import _checks, _preflight, _skeleton, hub
from ._placement import size_of
from ._tower import DTYPES, Facts, Tokenizer, Tower

allow_import()
import transformers  # noqa: E402  (needs the line above)

PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Kind:
    """What differs between model types: class, the parts of each tower, how features come out of it."""

    model: str
    image: tuple[str, ...]
    text: tuple[str, ...]
    image_features: Callable[[nn.Module, Tensor], Tensor]
    text_features: Callable[..., Tensor]
    context_length: int | None = None  # where the tokenizer does not say it
    masked: bool = True  # padding is masked; else prompts are padded to the context length and nothing is masked
    canonical: bool = False  # text is lower-cased and loses its punctuation
    prefix: str = ""  # of the keys in the published file, where it holds a larger model
    larger: tuple[str, ...] = ()  # parts of that larger model


def projected(output) -> Tensor:
    """The projected features: a tensor in transformers 4, `pooler_output` of an object in 5."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _image(model: nn.Module, pixels: Tensor) -> Tensor:
    return projected(model.get_image_features(pixel_values=pixels))


def _text(model: nn.Module, **tokens: Tensor) -> Tensor:
    return projected(model.get_text_features(**tokens))


def _patches(model: nn.Module, pixels: Tensor) -> Tensor:
    """NaFlex takes a list of patches and the shape of its grid instead of an image."""
    side, (batch, channels, height, width) = model.config.vision_config.patch_size, pixels.shape
    rows, columns = height // side, width // side
    grid = pixels.reshape(batch, channels, rows, side, columns, side)
    patches = grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)
    mask = torch.ones(batch, rows * columns, dtype=torch.int32, device=pixels.device)
    shapes = torch.tensor([[rows, columns]] * batch, device=pixels.device)
    return projected(model.get_image_features(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes))


def _queries(model: nn.Module, pixels: Tensor) -> Tensor:
    """BLIP-2 describes an image by Q vectors, (B, Q, D); the best of them counts for a prompt."""
    seen = model.vision_model(pixel_values=pixels).last_hidden_state
    queries = model.query_tokens.expand(len(pixels), -1, -1)
    found = model.qformer(
        query_embeds=queries,
        encoder_hidden_states=seen.to(queries.dtype),
        encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device),
    ).last_hidden_state
    return model.vision_projection(found.to(model.vision_projection.weight.dtype))


def _blip2_text(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    words = model.embeddings(input_ids=input_ids)
    read = model.qformer(query_embeds=words, query_length=0, attention_mask=attention_mask).last_hidden_state
    return model.text_projection(read[:, 0].to(model.text_projection.weight.dtype))


CLIP = Kind("CLIPModel", ("vision_model", "visual_projection"), ("text_model", "text_projection"), _image, _text)
SIGLIP = Kind("SiglipModel", ("vision_model",), ("text_model",), _image, _text, masked=False, canonical=True)
KINDS = {
    "clip": CLIP,
    "siglip": SIGLIP,
    "siglip2": Kind("Siglip2Model", ("vision_model",), ("text_model",), _patches, _text, masked=False, canonical=True),
    "align": Kind("AlignModel", ("vision_model",), ("text_model", "text_projection"), _image, _text, 64),
    # features of all tokens are projected: the first one is the image's, or the sentence's
    "flava": Kind(
        "FlavaModel",
        ("image_model", "image_projection"),
        ("text_model", "text_projection"),
        lambda model, pixels: _image(model, pixels)[:, 0],
        lambda model, **tokens: _text(model, **tokens)[:, 0],
        context_length=77,
        prefix="flava.",
        larger=("image_codebook.", "mim_head.", "mlm_head.", "itm_head.", "mmm_image_head.", "mmm_text_head."),
    ),
    "blip-2": Kind(
        "Blip2ForImageTextRetrieval",
        ("vision_model", "query_tokens", "qformer", "vision_projection"),
        ("embeddings", "qformer", "text_projection"),
        _queries,
        _blip2_text,
        context_length=32,
    ),
}


def load(name: str, entry: ModelEntry, root: Path, tower: str, device: torch.device, dtype: str) -> Tower:
    """Check the checkpoint against its entry and its own configs, and load one tower of it."""
    where = f"models.yaml: {name}"
    folder = root / entry.weights if entry.weights else hub.fetch_folder(name, entry)
    config = _config(folder, where)
    kind = KINDS[config.model_type]
    with _skeleton.skeletons():
        model = getattr(transformers, kind.model)(config)
    tokens = _tokens(folder, entry, root, where) if tower == "text" else None
    facts = _checks.facts(entry, _facts(folder, config, kind, tokens, entry, where), where)
    tokenizer = _tokenizer(tokens, kind, facts, model, entry, where) if tower == "text" else None
    part = _tower_of(model, kind, tower, dtype)
    _checks.run_in_fp32(part, entry.fp32_layers, where)
    _preflight.memory(name, size_of(part), device, dtype)
    state = _adapted(_skeleton.read(_weights_file(name, entry, folder, where), where), model, kind)
    _skeleton.check(model, state, where, entry.allow)
    _skeleton.assign(part, state, device)
    return Tower(
        part,
        facts,
        where,
        device,
        dtype,
        _logit_scale(state, entry),
        forward_image=kind.image_features,
        forward_text=kind.text_features,
        tokenizer=tokenizer,
        allow=entry.allow,
        fp32_layers=entry.fp32_layers,
        logit_bias=float(state["logit_bias"]) if "logit_bias" in state else None,
    )


def export(name: str, entry: ModelEntry, root: Path, tower: Tower, folder: Path) -> dict:
    """Write a folder of transformers with the tower's present weights, the rest as it was; the entry that loads it."""
    where = f"models.yaml: {name}"
    source = root / entry.weights if entry.weights else hub.fetch_folder(name, entry)
    config = _config(source, where)
    kind = KINDS[config.model_type]
    with _skeleton.skeletons():
        model = getattr(transformers, kind.model)(config)
    state = _adapted(_skeleton.read(_weights_file(name, entry, source, where), where), model, kind)
    state = {key: tensor for key, tensor in state.items() if key in model.state_dict()}
    hub.copy_small_files(source, folder)
    _skeleton.write(folder / "model.safetensors", state, tower.module.state_dict())
    return {"weights": ".", **({"tokenizer": entry.tokenizer} if entry.tokenizer else {})}


def _config(folder: Path, where: str):
    """config.json as the library's object, of one of the known kinds."""
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {folder} is no folder of transformers: {error}") from None
    if kind not in KINDS:
        raise UserError(f"{where}: no dual encoder of type {kind!r} is known.{did_you_mean(str(kind), KINDS)}")
    return transformers.AutoConfig.from_pretrained(folder)


def _facts(folder: Path, config, kind: Kind, tokens, entry: ModelEntry, where: str) -> Facts:
    """What the folder's configs say; UserError when the pixels it asks for are not those of its positions."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        _checks.declared(entry, ("size", "mean", "std", "resize_mode"), where)
        trained = Facts(entry.size, entry.mean, entry.std, entry.resize_mode)
    else:
        trained = preprocessing(json.loads(file.read_text()))
    vision = getattr(config, "vision_config", None) or config.image_config
    if config.model_type == "siglip2":  # its positions are resized for any grid: a square one of as many patches
        built = vision.patch_size * math.isqrt(vision.num_patches)
    else:
        built = trained.size if config.model_type == "align" else vision.image_size
    if trained.size != built:
        raise UserError(
            f"{where}: position_embedding: preprocessor_config.json asks for {trained.size} pixels, the "
            f"position embedding is one for {built}; the files do not belong together"
        )
    text = getattr(config, "text_config", None)
    quick_gelu = text.hidden_act == "quick_gelu" if config.model_type == "clip" else None
    context = _context_length(config, kind, tokens, entry) if tokens else None
    return Facts(built, trained.mean, trained.std, trained.resize_mode, context, quick_gelu)


def preprocessing(config: dict) -> Facts:
    """A preprocessor_config.json as size, mean, std and resize mode of pixels in 0..1."""
    size = config.get("size") or {}
    size = {"shortest_edge": size} if isinstance(size, int) else size
    edges = {size.get("height"), size.get("width")} - {None}
    if config.get("do_center_crop"):
        crop = config["crop_size"]
        pixels = crop if isinstance(crop, int) else crop["height"]
    elif "max_num_patches" in config:
        pixels = config.get("patch_size", 16) * math.isqrt(config["max_num_patches"])
    else:
        pixels = next(iter(edges)) if edges else size["shortest_edge"]
    # values are scaled by a factor, moved to start at -1 if there is an offset, then normalised
    span, offset = 255 * config.get("rescale_factor", 1 / 255), 1.0 if config.get("rescale_offset") else 0.0
    normalised = config.get("do_normalize", True)
    mean, std = (config["image_mean"], config["image_std"]) if normalised else ([0.0] * 3, [1.0] * 3)
    return Facts(
        size=pixels,
        mean=tuple((m + offset) / span for m in mean),
        std=tuple(s / span for s in std),
        resize_mode="shortest" if "shortest_edge" in size else "squash",
    )


def _context_length(config, kind: Kind, tokens, entry: ModelEntry) -> int:
    """The tokenizer's limit where it has one, the kind's, or all positions; an entry may only ask for fewer."""
    text = getattr(config, "text_config", None)
    text = text if hasattr(text, "max_position_embeddings") else config.qformer_config
    positions = getattr(text, "max_position_embeddings", None) or 512
    usual = kind.context_length or min(tokens.model_max_length, positions)
    return min(usual, positions, entry.context_length or usual)


def _tokens(folder: Path, entry: ModelEntry, root: Path, where: str):
    """The folder's tokenizer, or the entry's `tokenizer` (folder or hub id)."""
    source = entry.tokenizer or folder
    if entry.tokenizer and (root / entry.tokenizer).exists():
        source = root / entry.tokenizer
    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: no tokenizer in {source}: {str(error).splitlines()[0]}. Bring its files, or say "
            "where they are: 'tokenizer: folder or hub id'"
        ) from None


def _tokenizer(tokens, kind: Kind, facts: Facts, model: nn.Module, entry: ModelEntry, where: str) -> Tokenizer:
    rows = getattr(model, "text_model", model).get_input_embeddings().weight.shape[0]
    _checks.vocabulary(len(tokens), rows, where, entry.allow)

    def cleaned(prompts: list[str]) -> list[str]:
        if not kind.canonical:
            return prompts
        return [" ".join(prompt.lower().translate(PUNCTUATION).split()) for prompt in prompts]

    def encode(prompts: list[str]) -> dict[str, Tensor]:
        padding = True if kind.masked else "max_length"
        ids = tokens(
            cleaned(prompts), padding=padding, truncation=True, max_length=facts.context_length, return_tensors="pt"
        )
        return {key: ids[key] for key in ("input_ids", "attention_mask")[: 2 if kind.masked else 1]}

    def lengths(prompts: list[str]) -> list[int]:
        return [len(row) for row in tokens(cleaned(prompts), padding=False, truncation=False)["input_ids"]]

    return Tokenizer(encode, lengths)


def _tower_of(model: nn.Module, kind: Kind, tower: str, dtype: str) -> nn.Module:
    """Keep one tower, in `dtype` except for the parts that the library keeps in float32."""
    part = _skeleton.without(model, set(_names(model)) - set(kind.image if tower == "image" else kind.text))
    part.to(dtype=DTYPES[dtype])
    for name in getattr(model, "_keep_in_fp32_modules", None) or ():
        child = getattr(part, name, None)
        if isinstance(child, nn.Module):
            child.float()
        elif child is not None:
            child.data = child.data.float()
    return part


def _names(model: nn.Module) -> list[str]:
    return [*model._modules, *model._parameters]


def _adapted(state: dict[str, Tensor], model: nn.Module, kind: Kind) -> dict[str, Tensor]:
    """The file's tensors under the model's names, without the rest of a larger model and old position ids."""
    if kind.prefix and any(key.startswith(kind.prefix) for key in state):
        state = {key.removeprefix(kind.prefix): tensor for key, tensor in state.items()}
    expected = model.state_dict()
    kept = {k: t for k, t in state.items() if not (k.startswith(kind.larger) and k not in expected)}
    kept = {k: t for k, t in kept.items() if k in expected or not k.endswith(("position_ids", "token_type_ids"))}
    return {k: t.reshape(expected[k].shape) if t.numel() == 1 and k in expected else t for k, t in kept.items()}


def _weights_file(name: str, entry: ModelEntry, folder: Path, where: str) -> Path:
    if not entry.weights:
        commit = folder.name
        path = hub.fetch(name, entry.hub, hub.weight_files(entry), commit, entry.download_gb)
        if path.name.endswith(".index.json"):
            hub.fetch_shards(name, entry.hub, path, commit)
        return path
    found = [folder / file for file in hub.weight_files(entry) if (folder / file).is_file()]
    if not found:
        raise UserError(f"{where}: no weights in {folder}; one of {', '.join(hub.weight_files(entry))} is needed")
    return found[0]


def _logit_scale(state: dict[str, Tensor], entry: ModelEntry) -> float | None:
    """exp(logit_scale), 1 / temperature, or the entry's where the checkpoint has none."""
    if "logit_scale" in state:
        return float(state["logit_scale"].float().exp())
    if "temperature" in state:
        return 1 / float(state["temperature"].float())
    return entry.logit_scale
