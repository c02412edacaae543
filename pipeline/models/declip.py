"""Family declip: DeCLIP ViT-B/32, from the user's own copy of the published `.pth.tar` (`weights`).

Its licence allows academic use only and no hub has it. The tensors are those of CLIP under other names, with a
bias in the text projection and a `<|mask|>` token among the special ones.
"""

from torch import Tensor

from ..core.errors import Mismatch, NotFound
from . import _checks, _skeleton, open_clip
from ._tokenizers import SimpleTokenizer, clip_tokenizer
from ._tower import Facts, Tower
from .family import Family, Wanted
from .open_clip import IMAGENET_MEAN, IMAGENET_STD

FAMILY = Family()
TRAINING_ONLY = ("projector", "predictor", "nn_replacer", "text_label_predictor")
MASK_ID = 49406  # where <|mask|> was inserted: the start and end of text come after it
HEAD_WIDTH = 64


def load(wanted: Wanted) -> Tower:
    """Map the file onto open_clip's CLIP with QuickGELU and load one tower of it."""
    if not wanted.path:
        raise NotFound(
            f"{wanted.where}: DeCLIP is for academic use and has to be brought: 'weights: path of the .pth.tar'"
        )
    state = renamed(_skeleton.read(wanted, wanted.path))
    config = config_of(state, wanted.where)
    model = open_clip.skeleton(config)
    state = open_clip.adapted(model, state, wanted.entry.allow)
    open_clip.lower(model, wanted.dtype)
    _skeleton.check(wanted, model, state)
    text, size = config["text_cfg"], config["vision_cfg"]["image_size"]
    facts = Facts(size, IMAGENET_MEAN, IMAGENET_STD, "shortest", text["context_length"], quick_gelu=True)
    facts = _checks.facts(wanted.entry, facts, wanted.where)
    part = open_clip.tower_of(model, wanted.tower)
    _skeleton.prepare(wanted, part)
    _skeleton.assign(wanted, part, state)
    clip = SimpleTokenizer(context_length=text["context_length"])
    tokenizer = clip_tokenizer(wanted, clip, text["vocab_size"], MASK_ID) if wanted.tower == "text" else None
    return open_clip.make_tower(wanted, part, facts, state, tokenizer)


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
        raise Mismatch(f"{where}: {error.args[0]} is missing; this is no DeCLIP ViT checkpoint") from None
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
