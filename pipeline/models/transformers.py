"""Family transformers: dual encoders of the transformers library, from the hub or a local folder (`weights`).

The folder has config.json, preprocessor_config.json, tokenizer files and safetensors or .bin weights, as
`save_pretrained` and the hub have it. The model type of config.json decides which of the kinds of _kinds.py it is.
"""

import json
import math
import string
from pathlib import Path

from torch import Tensor, nn

from ..core._torchvision import allow_import
from ..core.errors import Damaged, Mismatch, NotFound, did_you_mean
from . import _checks, _skeleton, hub
from ._kinds import KINDS, Kind
from ._tower import DTYPES, Facts, Tokenizer, Tower
from .family import Family, Wanted

allow_import()
import transformers  # noqa: E402  (needs the line above)

FAMILY = Family(
    weights=("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    trainable=True,
    shorter_context=True,
    reading=2,
)
PUNCTUATION = str.maketrans("", "", string.punctuation)


def load(wanted: Wanted) -> Tower:
    """Check the checkpoint against its entry and its own configs, and load one tower of it."""
    folder, config, kind, model = built(wanted)
    tokens = _tokens(wanted, folder) if wanted.tower == "text" else None
    facts = _checks.facts(wanted.entry, declared(wanted, folder, config, kind, tokens), wanted.where)
    tokenizer = _tokenizer(wanted, tokens, kind, facts, model) if tokens else None
    part = _tower_of(model, kind, wanted)
    _skeleton.prepare(wanted, part)
    state = read(wanted, folder, kind, model)
    _skeleton.check(wanted, model, state)
    _skeleton.assign(wanted, part, state)
    return Tower(
        wanted,
        part,
        facts,
        forward_image=kind.image_features,
        forward_text=kind.text_features,
        tokenizer=tokenizer,
        logit_scale=_logit_scale(state, wanted),
        logit_bias=float(state["logit_bias"]) if "logit_bias" in state else None,
    )


def export(wanted: Wanted, tower: Tower, folder: Path) -> dict:
    """Write a folder of transformers with the tower's present weights, the rest as it was; the entry that loads it."""
    source, _, kind, model = built(wanted)
    state = {key: tensor for key, tensor in read(wanted, source, kind, model).items() if key in model.state_dict()}
    hub.copy_small_files(source, folder)
    _skeleton.write(folder / FAMILY.weights[0], state, tower.module.state_dict())
    return {"weights": ".", **({"tokenizer": wanted.entry.tokenizer} if wanted.entry.tokenizer else {})}


def built(wanted: Wanted) -> tuple[Path, "transformers.PretrainedConfig", Kind, nn.Module]:
    """The checkpoint's folder, its config, what kind that is, and its model without weights."""
    folder = wanted.path or hub.fetch_folder(wanted.name, wanted.entry)
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError) as error:
        raise Damaged(f"{wanted.where}: {folder} is no folder of transformers: {error}") from None
    if kind not in KINDS:
        raise NotFound(f"{wanted.where}: no dual encoder of type {kind!r} is known.{did_you_mean(str(kind), KINDS)}")
    config = transformers.AutoConfig.from_pretrained(folder)
    with _skeleton.skeletons():
        return folder, config, KINDS[kind], getattr(transformers, KINDS[kind].model)(config)


def read(wanted: Wanted, folder: Path, kind: Kind, model: nn.Module) -> dict[str, Tensor]:
    """The checkpoint's tensors under the model's names, without the rest of a larger model and old position ids."""
    path = hub.weights(wanted, revision=None if wanted.path else folder.name)
    state, expected = _skeleton.read(wanted, path), model.state_dict()
    if kind.prefix and any(key.startswith(kind.prefix) for key in state):
        state = {key.removeprefix(kind.prefix): tensor for key, tensor in state.items()}
    state = {k: t for k, t in state.items() if k in expected or not k.startswith(kind.larger)}
    state = {k: t for k, t in state.items() if k in expected or not k.endswith(("position_ids", "token_type_ids"))}
    return {k: t.reshape(expected[k].shape) if t.numel() == 1 and k in expected else t for k, t in state.items()}


def declared(wanted: Wanted, folder: Path, config, kind: Kind, tokens) -> Facts:
    """What the folder's configs say; UserError when the pixels it asks for are not those of its positions."""
    entry, file = wanted.entry, folder / "preprocessor_config.json"
    if not file.is_file():
        _checks.declared(entry, ("size", "mean", "std", "resize_mode"), wanted.where)
        trained = Facts(entry.size, entry.mean, entry.std, entry.resize_mode)
    else:
        trained = preprocessing(_processor(folder, wanted.where))
    vision = getattr(config, "vision_config", None) or config.image_config
    if config.model_type == "siglip2":  # its positions are resized for any grid: a square one of as many patches
        built = vision.patch_size * math.isqrt(vision.num_patches)
    else:
        built = trained.size if config.model_type == "align" else vision.image_size
    if trained.size != built:
        raise Mismatch(
            f"{wanted.where}: position_embedding: preprocessor_config.json asks for {trained.size} pixels, the "
            f"position embedding is one for {built}; the files do not belong together"
        )
    text = getattr(config, "text_config", None)
    quick_gelu = text.hidden_act == "quick_gelu" if config.model_type == "clip" else None
    context = _context_length(config, kind, tokens, entry.context_length) if tokens else None
    return Facts(built, trained.mean, trained.std, trained.resize_mode, context, quick_gelu)


def _processor(folder: Path, where: str) -> dict:
    """What the processor's own class makes of preprocessor_config.json: of a number alone one makes the shortest edge,
    another a square, and each has values of its own for what the file leaves out."""
    try:
        return transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False).to_dict()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(
            f"{where}: {folder}/preprocessor_config.json: no image processor of the library: "
            f"{(str(error).strip().splitlines() or [type(error).__name__])[0]}"
        ) from None


def preprocessing(config: dict) -> Facts:
    """A processor's settings as size, mean, std and resize mode of pixels in 0..1."""
    size = config.get("size") or {}
    edges = {size.get("height"), size.get("width")} - {None}
    if config.get("do_center_crop"):
        pixels = config["crop_size"]["height"]
    elif "max_num_patches" in config:
        pixels = config.get("patch_size", 16) * math.isqrt(config["max_num_patches"])
    else:
        pixels = next(iter(edges)) if edges else size["shortest_edge"]
    # values are scaled by a factor, moved to start at -1 if there is an offset, then normalised
    span, offset = 255 * config.get("rescale_factor", 1 / 255), 1.0 if config.get("rescale_offset") else 0.0
    normalised = config.get("do_normalize", True)
    mean, std = (config["image_mean"], config["image_std"]) if normalised else ([0.0] * 3, [1.0] * 3)
    again = config["image_std"] if config.get("include_top") else [1.0] * 3  # EfficientNet's divides once more
    return Facts(
        size=pixels,
        mean=tuple((m + offset) / span for m in mean),
        std=tuple(s * more / span for s, more in zip(std, again, strict=True)),
        resize_mode="shortest" if size.get("shortest_edge") else "squash",
    )


def _context_length(config, kind: Kind, tokens, asked: int | None) -> int:
    """The tokenizer's limit where it has one, the kind's, or all positions; an entry may only ask for fewer."""
    text = getattr(config, "text_config", None)
    text = text if hasattr(text, "max_position_embeddings") else config.qformer_config
    positions = getattr(text, "max_position_embeddings", None) or 512
    usual = kind.context_length or min(tokens.model_max_length, positions)
    return min(usual, positions, asked or usual)


def _tokens(wanted: Wanted, folder: Path):
    """The folder's tokenizer, or the entry's `tokenizer` (folder or hub id)."""
    own = wanted.entry.tokenizer
    source = wanted.root / own if own and (wanted.root / own).exists() else own or folder
    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise NotFound(
            f"{wanted.where}: no tokenizer in {source}: {str(error).splitlines()[0]}. Bring its files, or say "
            "where they are: 'tokenizer: folder or hub id'"
        ) from None


def canonical(prompt: str) -> str:
    """As the evaluator of SigLIP's authors has it: lower case, `_` is a space, other ASCII punctuation goes."""
    return " ".join(prompt.replace("_", " ").translate(PUNCTUATION).lower().split())


def _tokenizer(wanted: Wanted, tokens, kind: Kind, facts: Facts, model: nn.Module) -> Tokenizer:
    rows = getattr(model, "text_model", model).get_input_embeddings().weight.shape[0]
    _checks.vocabulary(len(tokens), rows, wanted.where, wanted.entry.allow)

    def cleaned(prompts: list[str]) -> list[str]:
        if not kind.canonical:
            return prompts
        return [canonical(prompt) for prompt in prompts]

    def encode(prompts: list[str]) -> dict[str, Tensor]:
        padding = True if kind.masked else "max_length"
        ids = tokens(
            cleaned(prompts), padding=padding, truncation=True, max_length=facts.context_length, return_tensors="pt"
        )
        return {key: ids[key] for key in ("input_ids", "attention_mask")[: 2 if kind.masked else 1]}

    def lengths(prompts: list[str]) -> list[int]:
        return [len(row) for row in tokens(cleaned(prompts), padding=False, truncation=False)["input_ids"]]

    return Tokenizer(encode, lengths)


def _tower_of(model: nn.Module, kind: Kind, wanted: Wanted) -> nn.Module:
    """Keep one tower, in its dtype except for the parts that the library keeps in float32."""
    names = {*model._modules, *model._parameters}
    part = _skeleton.without(model, names - set(kind.image if wanted.tower == "image" else kind.text))
    part.to(dtype=DTYPES[wanted.dtype])
    for name in getattr(model, "_keep_in_fp32_modules", None) or ():
        child = getattr(part, name, None)
        if isinstance(child, nn.Module):
            child.float()
        elif child is not None:
            child.data = child.data.float()
    return part


def _logit_scale(state: dict[str, Tensor], wanted: Wanted) -> float | None:
    """exp(logit_scale), 1 / temperature, or the entry's where the checkpoint has none."""
    if "logit_scale" in state:
        return float(state["logit_scale"].float().exp())
    if "temperature" in state:
        return 1 / float(state["temperature"].float())
    return wanted.entry.logit_scale
