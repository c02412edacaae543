"""Models built without memory, and filled tensor by tensor from a checkpoint that must fit exactly.

A model is built as a skeleton whose parameters have no memory, only one tower of it is kept, and the tensors of
the memory-mapped file become its parameters one by one, in the dtype and on the device where they are used.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core.errors import Mismatch, prefixed
from ..core.files import atomic_file
from . import _checks, _preflight, hub
from ._intact import Watch
from ._placement import size_of
from ._weights import Shards, open_weights, some
from .family import Wanted


@contextlib.contextmanager
def skeletons() -> Iterator[None]:
    """Modules made in this block have parameters without memory (device meta) and real buffers.

    Buffers stay real because some are computed at construction and are in no checkpoint: causal masks, rotary
    tables, position ids. On meta they would be lost without an error.
    """
    # some modules run a part of themselves while they are built, to learn its output size
    probe = nn.modules.module.register_module_forward_pre_hook(
        lambda _, inputs: tuple(value.to("meta") if isinstance(value, Tensor) else value for value in inputs)
    )
    try:
        with init_empty_weights(include_buffers=False):
            yield
    finally:
        probe.remove()


def opened(wanted: Wanted, path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint, in its memory-mapped file; shards that a hub has yet can be fetched."""
    repo, commit = wanted.entry.hub, path.parent.name
    fetch = None if wanted.path else lambda files: hub.fetch_all(wanted.name, repo, files, commit)
    with prefixed(wanted.where):
        return open_weights(path, fetch, Watch(wanted))


def read(wanted: Wanted, path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, still in their memory-mapped file."""
    weights = opened(wanted, path)
    if isinstance(weights, Shards):
        weights.need(weights)
    with prefixed(wanted.where):
        return dict(weights)


def prepare(wanted: Wanted, part: nn.Module) -> None:
    """What is to be done with a tower before it has weights: layers that stay in float32; does the rest fit?"""
    _checks.run_in_fp32(part, wanted.entry.fp32_layers, wanted.where)
    _preflight.memory(wanted.name, size_of(part), wanted.device, wanted.dtype)


def check(wanted: Wanted, module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The file must have exactly the tensors of the whole model, in its shapes.

    UserError lists missing and unexpected keys; a wrong vocabulary or position embedding is told as such.
    """
    expected = set(module.state_dict())
    missing = [key for key in expected - set(state) if not key.endswith("num_batches_tracked")]
    unexpected = () if "unexpected_keys" in wanted.entry.allow else set(state) - expected
    if missing or unexpected:
        hint = "" if missing else "; 'allow: [unexpected_keys]' ignores them"
        raise Mismatch(
            f"{wanted.where}: the checkpoint is of another architecture: "
            f"{_listed('missing', missing)}, {_listed('unexpected', unexpected)}{hint}"
        )
    for key, parameter in module.state_dict().items():
        if key in state and state[key].shape != parameter.shape:
            raise Mismatch(f"{wanted.where}: {_other_shape(key, tuple(state[key].shape), tuple(parameter.shape))}")


def _listed(what: str, keys) -> str:
    return f"{len(keys)} {what} keys" + (f" ({some(set(keys))})" if keys else "")


def _other_shape(key: str, have: tuple[int, ...], needed: tuple[int, ...]) -> str:
    if "token_embedding" in key or "word_embeddings" in key:
        return (
            f"vocabulary: the file's token embedding has {have[0]} rows, the architecture's {needed[0]}; another "
            "architecture or tokenizer belongs to it"
        )
    if "pos" in key and "emb" in key:
        return (
            f"position_embedding: {key} of the file is {have}, the image size or context length asks for {needed}. "
            "Give the size the file was trained with (size: ...), or have it interpolated: "
            "'allow: [position_embedding]' (family open_clip)"
        )
    return f"{key} is {have} in the file and {needed} in the architecture; they do not belong together"


def assign(wanted: Wanted, part: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make the tensors of a file those of one tower, in its dtypes; those of the other tower are left.

    Keys and shapes have been checked on the whole model. A tensor that fits is used as it lies in the mapped file.
    """
    skeleton = part.state_dict()
    with prefixed(wanted.where):
        for key in skeleton.keys() & state.keys():
            Watch(wanted).tensor(key, state[key], skeleton[key])
    fitting = {key: state[key].to(wanted.device, skeleton[key].dtype) for key in skeleton if key in state}
    part.load_state_dict(fitting, strict=False, assign=True)
    on_meta = [name for name, tensor in (*part.named_parameters(), *part.named_buffers()) if tensor.is_meta]
    assert not on_meta, f"left without values: {on_meta}"
    part.to(wanted.device).requires_grad_(False).eval()


def without(module: nn.Module, names) -> nn.Module:
    """The same module without some of its direct parts; `module` itself stays whole."""
    part = copy.copy(module)
    part._parameters, part._buffers, part._modules = map(dict, (part._parameters, part._buffers, part._modules))
    part._non_persistent_buffers_set = set(part._non_persistent_buffers_set)
    for name in names:
        if hasattr(part, name):
            delattr(part, name)
    return part


def write(path: Path, state: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    """Write a checkpoint of the same tensors as `state`, those of a tower replaced by its `trained` ones."""
    lost = [name for name in trained if name not in state and not name.endswith("num_batches_tracked")]
    assert not lost, f"the file's layout has no place for {some(set(lost))}"
    whole = {name: trained.get(name, tensor).detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with atomic_file(path) as temporary:
        save_file(whole, temporary, {"format": "pt"})
