"""What is needed and what is free, told before a download or a load instead of failing in the middle of it."""

import os
import shutil
from pathlib import Path

from ..core.errors import Unavailable

GB = 1e9
MARGIN = 1.05  # of what is needed, for everything that is not weights


def disk(name: str, folder: Path, needed: float) -> None:
    """UserError when `needed` bytes do not fit on the disk of `folder` (which need not exist yet)."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise Unavailable(
            f"model {name}: {_gb(needed)} to download to {folder}, {_gb(free)} free. Make room, or keep "
            "the hub's cache on another disk: HF_HOME=folder"
        )


def memory(name: str, needed: float, device, dtype: str) -> None:
    """UserError when `needed` bytes of weights in `dtype` do not fit into the memory of `device` (a torch.device)."""
    needed *= MARGIN
    free = _free_on_gpu(device) if device.type == "cuda" else free_on_host()
    if needed > free:
        halve = " (half of it with DTYPE=fp16 or bf16)" if dtype == "fp32" and needed / 2 < free else ""
        raise Unavailable(
            f"model {name}: needs {_gb(needed)} of memory on {device}{halve}, {_gb(free)} free. Close what "
            "else runs there, or choose a smaller model or another DEVICE"
        )


def free_on_host() -> float:
    """Bytes that this process may still use: of the machine and of its control group."""
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = pages * size
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    limit = _read(group / "memory.max").strip()
    if limit.isdigit():
        reclaimable = sum(
            int(line.split()[1])
            for line in _read(group / "memory.stat").splitlines()
            if line.startswith(("inactive_file ", "active_file "))
        )
        free = min(free, int(limit) - int(_read(group / "memory.current") or 0) + reclaimable)
    return free


def _read(path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _free_on_gpu(device) -> float:
    import torch  # not at the top: `make models` needs what is here, and no torch

    return torch.cuda.mem_get_info(device)[0]


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"
