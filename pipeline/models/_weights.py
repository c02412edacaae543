"""Checkpoint files as mappings of name -> tensor: read when asked for, memory-mapped, and never unpickled.

A tensor is a view of its file until something converts it, so looking at a 36 GB checkpoint costs no memory.
"""

import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.errors import Damaged, Forbidden, Mismatch, NotFound

if TYPE_CHECKING:
    from ._intact import Watch

WRAPPERS = ("state_dict", "model", "module")


def open_weights(
    path: Path, fetch: Callable[[list[str]], object] | None = None, watch: "Watch | None" = None
) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint: a .safetensors file, a torch file, or an index.json with its shards beside it.

    `fetch` brings shards that are not there yet, `watch` looks whether a file is whole. UserError when one is missing,
    truncated, not a checkpoint, or holds anything but tensors and plain containers.
    """
    if not path.is_file():
        raise NotFound(f"{path}: no such file")
    if path.name.endswith(".index.json"):
        return Shards(path, fetch, watch)
    if path.suffix != ".safetensors":
        content = _torch_file(path)  # first, since it knows what a file is that is none of tensors
        if watch:
            watch.file(path)
        return content
    weights = SafeTensors(path)
    if watch and not watch.file(path):
        watch.end(path, weights, weights.in_order())
    return weights


class SafeTensors(Mapping):
    """The tensors of one .safetensors file."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise Damaged(f"{path}: not a whole safetensors file ({error}); fetch it again") from None
        self._names = dict.fromkeys(self._file.keys())

    def in_order(self) -> list[str]:
        """The names as their tensors lie in the file."""
        return self._file.offset_keys()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        try:
            return self._file.get_tensor(name)
        except (SafetensorError, RuntimeError, OSError) as error:
            raise Damaged(f"{self._path}: {name} cannot be read ({error}); fetch it again") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Shards(Mapping):
    """The tensors that an index.json spreads over files; a shard is opened when one of its tensors is asked for."""

    def __init__(self, index: Path, fetch: Callable[[list[str]], object] | None, watch: "Watch | None" = None):
        self._index, self._fetch, self._watch, self._open = index, fetch, watch, {}
        try:
            self._file_of = dict(json.loads(index.read_text())["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{index}: not an index of shards ({type(error).__name__}: {error})") from None
        outside = sorted({f"{file}" for file in self._file_of.values() if Path(str(file)).name != file})
        if outside:
            raise Damaged(f"{index}: shards must be plain file names beside the index, found {outside[:3]}")

    def need(self, names: Iterable[str]) -> None:
        """Fetch the shards of these tensors that are not there."""
        files = sorted({self._file_of[name] for name in names})
        absent = [file for file in files if not (self._index.parent / file).is_file()]
        if self._fetch and absent:
            self._fetch(absent)

    def __getitem__(self, name: str) -> Tensor:
        file = self._file_of[name]
        if file not in self._open:
            self._open[file] = self._opened(file)
        return self._open[file][name]

    def _opened(self, file: str) -> Mapping[str, Tensor]:
        shard = open_weights(self._index.parent / file, watch=self._watch)
        listed = {name for name, where in self._file_of.items() if where == file}
        if listed != set(shard):
            raise Mismatch(
                f"{self._index}: {file} holds other tensors than the index lists: "
                f"{some(listed ^ set(shard))}; index and shards are of different downloads"
            )
        return shard

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def _torch_file(path: Path) -> dict[str, Tensor]:
    """The state dict of a torch file, out of its wrappers and without the `module.` of distributed training."""
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) != b"\x80\x02"  # what torch < 1.6 wrote is a bare pickle, which cannot be mapped
        content = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    except pickle.UnpicklingError as error:
        raise Forbidden(
            f"{path}: holds more than tensors, and unpickling could run any code: refused "
            f"({str(error).strip().splitlines()[0]}). Take the .safetensors file, or a state dict "
            "saved by someone you trust"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # damage makes the reader fail in many ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "TorchScript" in reason:
            raise Forbidden(
                f"{path}: a TorchScript archive, which is code: refused. Take the .safetensors file, or a "
                "state dict of tensors"
            ) from None
        raise Damaged(f"{path}: not a whole torch file ({reason}); fetch it again") from None
    while isinstance(content, dict) and (inner := [w for w in WRAPPERS if isinstance(content.get(w), dict)]):
        content = content[inner[0]]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise Damaged(f"{path}: not a state dict; expected names and tensors, or one of {WRAPPERS} holding them")
    if content and all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def some(names: set[str], most: int = 6) -> str:
    """'a, b, c and 12 more' for an error message."""
    listed = sorted(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
