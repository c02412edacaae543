"""Family declip: DeCLIP ViT-B/32, from the user's own copy of the published `.pth.tar` (`weights`).

Its licence allows academic use only and no hub has it. The tensors are those of CLIP under other names, with a
bias in the text projection and a `<|mask|>` token among the special ones.
"""

from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import UserError
from ..recipes import ModelEntry
from . import _checks, _preflight, _skeleton, open_clip
from ._placement import size_of
from ._tower import Facts, Tokenizer, Tower

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINING_ONLY = ("projector", "predictor", "nn_replacer", "text_label_predictor")
MASK_ID = 49406  # where <|mask|> was inserted: the start and end of text come after it
HEAD_WIDTH = 64


def load(name: str, entry: ModelEntry, root: Path, tower: str, device: torch.device, dtype: str) -> Tower:
    """Map the file onto open_clip's CLIP with QuickGELU and load one tower of it."""
    where = f"models.yaml: {name}"
    if not entry.weights:
        raise UserError(f"{where}: DeCLIP is for academic use and has to be brought: 'weights: path of the .pth.tar'")
    state = renamed(_skeleton.read(root / entry.weights, where))
    config = config_of(state, where)
    model = open_clip.skeleton(config)
    state = open_clip.adapted(model, state, entry.allow)
    open_clip.lower(model, dtype)
    _skeleton.check(model, state, where, entry.allow)
    context, size = config["text_cfg"]["context_length"], config["vision_cfg"]["image_size"]
    facts = _checks.facts(entry, Facts(size, *IMAGENET, "shortest", context, quick_gelu=True), where)
    part = open_clip.tower_of(model, tower)
    _checks.run_in_fp32(part, entry.fp32_layers, where)
    _preflight.memory(name, size_of(part), device, dtype)
    _skeleton.assign(part, state, device)
    tokenizer = _tokenizer(config["text_cfg"], entry, where) if tower == "text" else None
    logit_scale = float(state["logit_scale"].float().exp())
    return open_clip.make_tower(part, facts, entry, where, device, dtype, logit_scale, tokenizer)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published names as CLIP's; what only training needs is dropped, logit_scale is made a scalar."""
    clip = {key.removeprefix("encode_text."): tensor for key, tensor in state.items()}
    clip = {key: tensor for key, tensor in clip.items() if not key.startswith(TRAINING_ONLY)}
    if "logit_scale" in clip:
        clip["logit_scale"] = clip["logit_scale"].reshape(())
    return clip


def config_of(state: dict[str, Tensor], where: str) -> dict:
    """The architecture in open_clip's words, read off the tensors' shapes."""
    try:
        patches, positions = state["visual.conv1.weight"], state["visual.positional_embedding"]
        projection, words = state["text_projection.weight"], state["token_embedding.weight"]
        context = state["positional_embedding"].shape[0]
    except KeyError as error:
        raise UserError(f"{where}: {error.args[0]} is missing; this is no DeCLIP ViT checkpoint") from None
    width, patch = patches.shape[0], patches.shape[-1]
    return {
        "embed_dim": projection.shape[0],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": patch * round((positions.shape[0] - 1) ** 0.5),
            "patch_size": patch,
            "width": width,
            "head_width": HEAD_WIDTH,
            "layers": _layers(state, "visual.transformer.resblocks."),
        },
        "text_cfg": {
            "context_length": context,
            "vocab_size": words.shape[0],
            "width": words.shape[1],
            "heads": max(1, words.shape[1] // HEAD_WIDTH),
            "layers": _layers(state, "transformer.resblocks."),
            "proj_bias": True,
        },
    }


def _layers(state: dict[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)})


def _tokenizer(text: dict, entry: ModelEntry, where: str) -> Tokenizer:
    """CLIP's tokenizer with its two last ids moved up by one, behind <|mask|>."""
    clip = open_clip.open_clip.SimpleTokenizer(context_length=text["context_length"])
    _checks.vocabulary(clip.vocab_size + 1, text["vocab_size"], where, entry.allow)

    def encode(prompts: list[str]) -> dict[str, Tensor]:
        ids = clip(prompts)
        return {"text": torch.where(ids >= MASK_ID, ids + 1, ids)}

    return Tokenizer(encode, lambda prompts: [len(clip.encode(prompt)) + 2 for prompt in prompts])
