"""What is needed and what is free, told before a download or a load instead of failing in the middle of it."""

import shutil
from pathlib import Path

from ..core.errors import Unavailable
from ..core.room import free_memory

GB = 1e9
MARGIN = 1.05  # of what is needed, for everything that is not weights


def disk(name: str, folder: Path, needed: float, elsewhere: str) -> None:
    """UserError when `needed` bytes do not fit on the disk of `folder` (which need not exist yet).

    `elsewhere` is how another disk is taken.
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise Unavailable(
            f"model {name}: {_gb(needed)} to download to {folder}, {_gb(free)} free. Make room, or {elsewhere}"
        )


def memory(name: str, needed: float, device, dtype: str) -> None:
    """UserError when `needed` bytes of weights in `dtype` do not fit into the memory of `device` (a torch.device)."""
    needed *= MARGIN
    free = _free_on_gpu(device) if device.type == "cuda" else free_memory()
    if needed > free:
        halve = " (half of it with DTYPE=fp16 or bf16)" if dtype == "fp32" and needed / 2 < free else ""
        raise Unavailable(
            f"model {name}: needs {_gb(needed)} of memory on {device}{halve}, {_gb(free)} free. Close what "
            "else runs there, or choose a smaller model or another DEVICE"
        )


def _free_on_gpu(device) -> float:
    import torch  # not at the top: `make models` needs what is here, and no torch

    return torch.cuda.mem_get_info(device)[0]


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"
