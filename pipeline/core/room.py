"""Room for large tensors: in memory, or in a file where they would take too much of it.

A tensor in a file is one like any other: what is touched is read, what is not may go back to the disk, and the kernel
does both. Whoever works on it a part at a time needs the memory of that part.
"""

import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import Unavailable

if TYPE_CHECKING:
    from torch import Tensor, dtype

SHARE = 0.25  # of the free memory that one tensor may take


def room(shape: tuple[int, ...], kind: "dtype", folder: Path) -> "Tensor":
    """A tensor with nothing in it yet; a large one lies in a file in `folder`, which has no name and ends with it."""
    import numpy as np
    import torch

    size = math.prod(shape) * kind.itemsize
    if size <= SHARE * free_memory():
        return torch.empty(shape, dtype=kind)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:  # all of it now: on a full disk a mapped file would end the process
            (os.posix_fallocate if hasattr(os, "posix_fallocate") else _written)(file.fileno(), 0, size)
        except OSError as error:
            raise Unavailable(
                f"{folder}: no room for {' x '.join(map(str, shape))} values, {size / 1e9:.1f} GB, nor in memory: "
                f"{error.strerror}"
            ) from None
        return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=size)).view(kind).view(shape)


def _written(file: int, start: int, size: int) -> None:
    """posix_fallocate, where there is none."""
    part = bytes(2**20)
    while start < size:
        start += os.pwrite(file, part[: size - start], start)


def free_memory() -> float:
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


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
