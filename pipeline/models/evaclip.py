"""Family evaclip: EVA-CLIP-18B and 8B (Sun et al. 2024, arXiv:2402.04252), one tower at a time.

`architecture` names the sizes. The checkpoint is the single .pt file, or the hub's shards: `hub` with `file` (for
shards, the index.json), or `weights`, a file or a folder (with `file` when the folder has several). A folder with
an eva_config.json (keys: the fields of EvaConfig) brings its own sizes and needs no `architecture`.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import Damaged, Mismatch, NotFound, UserError, did_you_mean, prefixed
from . import _checks, _preflight, _skeleton, hub
from . import _eva_towers as towers
from ._intact import Watch
from ._placement import place, size_of
from ._tokenizers import SimpleTokenizer, clip_tokenizer
from ._tower import DTYPES, Facts, Tower
from ._weights import Shards, some
from .family import Family, Wanted
from .open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

FAMILY = Family(
    weights=("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
)
CONFIG_FILE = "eva_config.json"
DEFAULT_LOGIT_SCALE = 100.0  # what the authors' code uses with the hub's files, which have none
WHOLE = ("Block", "ImageStem", "TextStem")  # residual branches and bare parameters cannot be split over devices


def load(wanted: Wanted) -> Tower:
    """Load one tower; the other one's tensors are never read.

    Weights of the requested dtype stay views of their file, others are converted one tensor at a time. On
    `cuda` without a number, or with `max_memory`, blocks are spread over devices (see _placement).
    UserError for a missing or broken file, for missing and unknown tensors, and for sizes that do not match.
    """
    entry, tower = wanted.entry, wanted.tower
    with prefixed(wanted.where):
        if not entry.weights and not entry.file:
            raise UserError(f"give 'file', the checkpoint's name in {entry.hub} (for shards: their index.json)")
        config = _config(wanted)
    mean, std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    facts = Facts(config.image_size, mean, std, "shortest", config.context_length, quick_gelu=False)
    facts = _checks.facts(entry, facts, wanted.where)
    with torch.device("meta"):
        module = towers.TOWERS[tower](config).to(DTYPES[wanted.dtype])
    _checks.run_in_fp32(module, entry.fp32_layers, wanted.where)
    if wanted.device.type != "cuda" and wanted.max_memory is None:  # on GPUs, placement knows what fits where
        _preflight.memory(wanted.name, size_of(module), wanted.device, wanted.dtype)
    clip = SimpleTokenizer(context_length=config.context_length)
    tokenizer = clip_tokenizer(wanted, clip, config.vocabulary) if tower == "text" else None
    weights = _skeleton.opened(wanted, hub.weights(wanted))
    with prefixed(wanted.where):
        layout = _layout(weights, config, wanted)
        if isinstance(weights, Shards):
            weights.need(towers.published_names(config, tower, layout))
        tensors = _tensors(module, weights, wanted, layout)
        device = place(module, tensors, wanted.device, WHOLE, wanted.max_memory)
    return Tower(
        wanted,
        module.eval(),
        facts,
        forward_image=lambda module, pixels: module(pixels),
        forward_text=lambda module, text: module(text),
        tokenizer=tokenizer,
        logit_scale=_logit_scale(weights, entry.logit_scale),
        device=device,
    )


def _config(wanted: Wanted) -> towers.EvaConfig:
    """The sizes: those of the architecture, or of the folder's own eva_config.json."""
    entry, published = wanted.entry, towers.PUBLISHED.get(wanted.entry.architecture)
    if entry.architecture is not None and published is None:
        raise NotFound(
            f"unknown architecture {entry.architecture!r}.{did_you_mean(entry.architecture, towers.PUBLISHED)}"
        )
    own = wanted.path and wanted.path / CONFIG_FILE
    if own is None or not own.is_file():
        if published is None:
            raise UserError(f"no sizes: give 'architecture' ({' or '.join(towers.PUBLISHED)})")
        return published
    config = _read_config(own)
    if published not in (None, config):
        differ = [key for key, value in asdict(config).items() if value != getattr(published, key)]
        raise Mismatch(
            f"{own}: differs from architecture {entry.architecture} in {', '.join(differ)}; "
            "leave 'architecture' out if the file is right"
        )
    return config


def _read_config(path: Path) -> towers.EvaConfig:
    types = {field.name: field.type for field in fields(towers.EvaConfig)}
    try:
        content = dict(json.loads(path.read_text()))
        wrong = sorted(key for key, value in content.items() if type(value) is not types.get(key))
        if wrong:
            raise Damaged(f"{path}: unknown keys or wrong values: {', '.join(wrong)}")
        return towers.EvaConfig(**content)
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise Damaged(f"{path}: not the sizes of an EVA-CLIP ({error})") from None


def _layout(weights: Mapping[str, Tensor], config: towers.EvaConfig, wanted: Wanted) -> str:
    """'pt' or 'hub', by the names; all of this tower's must be there, and nothing of neither tower."""
    names = set(weights)
    known = {
        layout: {one: towers.published_names(config, one, layout) for one in towers.TOWERS} for layout in towers.LAYOUTS
    }
    layout = max(towers.LAYOUTS, key=lambda layout: len(names & set().union(*known[layout].values())))
    missing = known[layout][wanted.tower] - names
    unexpected = names - set().union(*known[layout].values(), {towers.LOGIT_SCALE})
    if "unexpected_keys" in wanted.entry.allow:
        unexpected = set()
    if missing or unexpected:
        found = [f"missing: {some(missing)}"] * bool(missing) + [f"unexpected: {some(unexpected)}"] * bool(unexpected)
        hint = "" if missing else ", or ignore them: 'allow: [unexpected_keys]'"
        raise Mismatch(
            f"not the {wanted.tower} tower of this architecture. {'; '.join(found)}. "
            f"Check 'architecture', or fetch the file again{hint}"
        )
    return layout


def _tensors(
    module: nn.Module, weights: Mapping[str, Tensor], wanted: Wanted, layout: str
) -> Iterator[tuple[str, Tensor]]:
    """The module's parameters out of the checkpoint, one by one, each in its dtype."""
    for name, parameter in module.named_parameters():
        source, part = towers.source_of(name, wanted.tower, layout)
        tensor = towers.from_published(weights[source], source, part, parameter.ndim)
        if tensor.shape != parameter.shape:
            _refuse_shape(name, source, tensor, parameter)
        Watch(wanted).tensor(name, tensor, parameter)
        yield name, tensor.to(parameter.dtype)


def _refuse_shape(name: str, source: str, found: Tensor, expected: Tensor) -> None:
    what = f"{source}: the file has {tuple(found.shape)}, the architecture {tuple(expected.shape)}"
    if name == "stem.position":
        raise Mismatch(
            f"{what}. The checkpoint was made for another image size or context length; positions are not interpolated"
        )
    raise Mismatch(f"{what}. Check 'architecture'")


def _logit_scale(weights: Mapping[str, Tensor], given: float | None) -> float:
    if towers.LOGIT_SCALE not in weights:
        return given or DEFAULT_LOGIT_SCALE
    return math.exp(float(weights[towers.LOGIT_SCALE]))
