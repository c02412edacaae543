"""Models built without memory, and filled tensor by tensor from a checkpoint that must fit exactly.

A model is built as a skeleton whose parameters have no memory, only one tower of it is kept, and the tensors of
the memory-mapped file become its parameters one by one, in the dtype and on the device where they are used.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import UserError, prefixed
from ..core.files import atomic_file
from ._weights import open_weights, some


@contextlib.contextmanager
def skeletons() -> Iterator[None]:
    """Modules made in this block have parameters without memory (device meta) and real buffers.

    Buffers stay real because some are computed at construction and are in no checkpoint: causal masks, rotary
    tables, position ids. On meta they would be lost without an error.
    """
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)

    # some modules run a part of themselves while they are built, to learn its output size
    probe = nn.modules.module.register_module_forward_pre_hook(
        lambda _, inputs: tuple(value.to("meta") if isinstance(value, Tensor) else value for value in inputs)
    )
    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register
        probe.remove()


def read(path: Path, where: str) -> dict[str, Tensor]:
    """All tensors of a checkpoint, still in their memory-mapped file; UserError starts with `where`."""
    with prefixed(where):
        return dict(open_weights(path))


def check(module: nn.Module, state: Mapping[str, Tensor], where: str, allow: tuple[str, ...] = ()) -> None:
    """The file must have exactly the tensors of the whole model, in its shapes.

    UserError lists missing and unexpected keys; a wrong vocabulary or position embedding is told as such.
    """
    expected = set(module.state_dict())
    missing = [key for key in expected - set(state) if not key.endswith("num_batches_tracked")]
    unexpected = () if "unexpected_keys" in allow else set(state) - expected
    if missing or unexpected:
        hint = "" if missing else "; 'allow: [unexpected_keys]' ignores them"
        raise UserError(
            f"{where}: the checkpoint is of another architecture: "
            f"{_listed('missing', missing)}, {_listed('unexpected', unexpected)}{hint}"
        )
    _check_shapes(module, state, where)


def _listed(what: str, keys) -> str:
    return f"{len(keys)} {what} keys" + (f" ({some(set(keys))})" if keys else "")


def _check_shapes(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    for key, parameter in module.state_dict().items():
        if key not in state or state[key].shape == parameter.shape:
            continue
        have, needed = tuple(state[key].shape), tuple(parameter.shape)
        if "token_embedding" in key or "word_embeddings" in key:
            raise UserError(
                f"{where}: vocabulary: the file's token embedding has {have[0]} rows, the architecture's "
                f"{needed[0]}; another architecture or tokenizer belongs to it"
            )
        if "pos" in key and "emb" in key:
            raise UserError(
                f"{where}: position_embedding: {key} of the file is {have}, the image size or context "
                f"length asks for {needed}. Give the size the file was trained with (size: ...), or have "
                f"it interpolated: 'allow: [position_embedding]' (family open_clip)"
            )
        raise UserError(
            f"{where}: {key} is {have} in the file and {needed} in the architecture; they do not belong together"
        )


def assign(module: nn.Module, state: Mapping[str, Tensor], device: torch.device) -> None:
    """Make the tensors of `state` the module's own, in the skeleton's dtypes and on `device`; extra ones are left.

    Keys and shapes have been checked on the whole model before a tower of it was taken. A tensor that already
    fits is used as it lies in the mapped file.
    """
    skeleton = module.state_dict()
    fitting = {key: state[key].to(device, skeleton[key].dtype) for key in skeleton if key in state}
    module.load_state_dict(fitting, strict=False, assign=True)
    on_meta = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    assert not on_meta, f"left without values: {on_meta}"
    module.to(device).requires_grad_(False).eval()


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
    from safetensors.torch import save_file

    lost = [name for name in trained if name not in state and not name.endswith("num_batches_tracked")]
    assert not lost, f"the file's layout has no place for {some(set(lost))}"
    whole = {name: trained.get(name, tensor).detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with atomic_file(path) as temporary:
        save_file(whole, temporary, {"format": "pt"})
