"""torch's files read as `torch.load(weights_only=True, mmap=True)` reads them, ten times as fast where they are plain.

torch undoes a pickle safely in Python, an opcode at a time: ten milliseconds for the ids of a shard, each time one is
read. The unpickler in C is as safe where it finds nothing to call but what puts a tensor together.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class _Rebuild:
    """torch's function that makes a tensor of a storage; being no function, it has nothing that a pickle could set."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> Any:
        from torch._utils import _rebuild_tensor_v2

        return _rebuild_tensor_v2(*arguments)


KNOWN = {("torch._utils", "_rebuild_tensor_v2"): _Rebuild(), ("collections", "OrderedDict"): OrderedDict}


class _Unknown(Exception):
    """A pickle names something else: torch decides about it."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise _Unknown(f"{module}.{name}")
        return KNOWN[module, name]


def load(source: Path | io.BytesIO) -> Any:
    """The content of a file that `torch.save` wrote, its tensors mapped where it is one on disk; any exception else."""
    import torch
    from torch.serialization import _load

    whole, file = None, source if isinstance(source, io.BytesIO) else str(source)
    if isinstance(source, Path):
        whole = torch.UntypedStorage.from_file(str(source), False, source.stat().st_size)
    else:
        source.seek(0)
    try:
        reader = torch._C.PyTorchFileReader(file)  # type: ignore[arg-type]  # a name is taken as well
        return _load(reader, "cpu", SimpleNamespace(Unpickler=_Plain), overall_storage=whole, encoding="utf-8")
    except _Unknown:
        if isinstance(source, io.BytesIO):
            source.seek(0)
        return torch.load(source, weights_only=True, map_location="cpu", mmap=isinstance(source, Path))
