"""Where a model's weights go: one device, or whole blocks spread over GPUs, host memory and disk.

`cuda` without a number means the GPUs of the machine: the first one alone if the weights fit there. `cuda:1`
and `cpu` mean that device and nothing else.
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import compute_module_sizes, get_balanced_memory, offload_weight, set_module_tensor_to_device
from torch import Tensor, nn

from ..core.errors import Unavailable
from ..core.room import free_memory

SHARE = 0.85  # of a GPU's free memory for weights; activations need the rest
GIB = 2**30


def place(
    model: nn.Module,
    weights: Iterable[tuple[str, Tensor]],
    device: torch.device,
    whole: tuple[str, ...] = (),
    max_memory: dict[int | str, int | str] | None = None,
) -> torch.device:
    """Give a model its weights, each straight on the device it belongs to; returns where inputs go.

    `model` may be on the meta device: `weights` (name, tensor) are taken one by one and must cover all of its
    parameters and buffers. Modules of the classes named in `whole` are never split. `max_memory` overrides
    what is free, e.g. {0: "20GiB", "cpu": "60GiB"} (GPUs by number); what fits nowhere goes to a temporary
    folder on disk (TMPDIR chooses where). UserError when one device was asked for and is too small.
    """
    where = plan(model, device, whole, max_memory)
    folder = tempfile.TemporaryDirectory(prefix="offload-") if "disk" in where.values() else None
    sizes = _sizes(model, where)
    _fill(model, weights, where, folder and Path(folder.name))
    if set(where) == {""}:
        model.to(where[""])
        return torch.device(where[""])
    dispatch_model(model, where, offload_dir=folder.name if folder else None)
    model.offload_folder = folder  # removed with the model
    print(f"placement  {type(model).__name__}: {_summary(sizes)}", flush=True)
    return main_device(where)


def _room(gpu: int) -> int:
    return int(SHARE * torch.cuda.mem_get_info(gpu)[0])


def plan(model: nn.Module, device: torch.device, whole: tuple[str, ...] = (), max_memory: dict | None = None) -> dict:
    """{module name: device} over the whole model: {'': device} where one is enough.

    Devices are torch.device, GPU numbers, 'cpu' or 'disk'. Sizes are those of the model's present dtypes.
    """
    if max_memory is None:
        if device.type != "cuda":
            return {"": device}
        need, first = size_of(model), torch.cuda.current_device() if device.index is None else device.index
        room = _room(first)  # asking a GPU opens a context on it, in each process of a launcher: no other is asked yet
        if need <= room:
            return {"": torch.device("cuda", first)}
        if device.index is not None:
            raise Unavailable(
                f"DEVICE={device}: the weights take {need / GIB:.1f} GiB, and {room / GIB:.1f} GiB "
                "are free for them; DEVICE=auto spreads them over all devices"
            )
        max_memory = {gpu: _room(gpu) for gpu in range(torch.cuda.device_count())}
        max_memory["cpu"] = int(SHARE * free_memory())
    # balanced: with two GPUs each gets half of the weights, so each keeps room for activations
    limits = get_balanced_memory(model, dict(max_memory), no_split_module_classes=list(whole))
    where = dict(infer_auto_device_map(model, limits, no_split_module_classes=list(whole)))
    if set(where.values()) == {"disk"}:
        raise Unavailable(
            f"the weights take {size_of(model) / GIB:.3g} GiB, and {max_memory} does not even hold "
            "one block; free some memory or take a smaller model"
        )
    return where


def main_device(where: dict) -> torch.device:
    """The device that works for the modules waiting in host memory or on disk: the first GPU, else the CPU."""
    gpus = [device for device in where.values() if device not in ("cpu", "disk")]
    return torch.device("cuda", gpus[0]) if gpus else torch.device("cpu")


def size_of(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def _sizes(model: nn.Module, where: dict) -> dict:
    """{device: bytes} of the weights under a plan."""
    of_module = compute_module_sizes(model)
    devices = dict.fromkeys(where.values())
    return {device: sum(of_module[name] for name, there in where.items() if there == device) for device in devices}


def _summary(sizes: dict) -> str:
    """'20.5 GiB on cuda:0, 12.3 GiB on cpu'"""
    names = {device: f"cuda:{device}" if isinstance(device, int) else str(device) for device in sizes}
    return ", ".join(f"{size / GIB:.1f} GiB on {names[device]}" for device, size in sizes.items())


def _fill(model: nn.Module, weights: Iterable[tuple[str, Tensor]], where: dict, folder: Path | None) -> None:
    on_disk: dict[str, dict] = {}
    for name, tensor in weights:
        device = _device_of(name, where)
        if device == "disk":
            offload_weight(tensor, name, str(folder), on_disk)
        else:
            set_module_tensor_to_device(model, name, device, tensor, clear_cache=False)
    if on_disk:
        (folder / "index.json").write_text(json.dumps(on_disk))
    # a tensor that nothing filled raises no error later: it computes garbage once something moves the model
    tensors = [*model.named_parameters(), *model.named_buffers()]
    empty = [name for name, tensor in tensors if tensor.is_meta and name not in on_disk]
    assert not empty, f"left without values: {empty}"
    model.requires_grad_(False)


def _device_of(name: str, where: dict):
    """The device of the longest module name in the plan that holds this tensor."""
    while name not in where and name:
        name = name.rpartition(".")[0]
    return where[name]
