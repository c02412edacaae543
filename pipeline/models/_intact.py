"""Whether a file of weights is as it was written, and its tensors are weights at all.

A torch file has a CRC-32 of every record, which torch never compares; a hub states the SHA-256 of a file. A file is
read once for that: what was found is remembered by its size and times in cache/intact.json. A local .safetensors has
no checksum; what an interrupted download leaves in it is zeros, which are looked for: at its end, and as holes.
"""

import hashlib
import itertools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.console import say
from ..core.digests import is_settled, read_memo, stamp_of, write_memo
from ..core.errors import Damaged, Mismatch
from . import hub
from .family import Wanted

GB = 1e9
LONG = 1 * GB  # bytes that take a while to read: said
CHUNK = 1 << 20  # bytes
MEMO = "intact.json"  # below cache/
TAIL = 64  # zeros in a row at the end of a file: no training leaves that many
SAMPLED = 256  # values of a matrix that are looked at before all of it is
HOLE = 4096  # bytes of zeros in a row that are taken for damage, unless they are whole rows of a matrix
PART = 16  # zeros of a row that is not all zeros beside those that are: so many are chance, or a dead 3 x 3 filter
POSITIONS = re.compile("pos")  # tables of sines begin with zeros

# what this process looked at, for a report: {file: what it was compared with}
compared: dict[Path, str] = {}


@dataclass(frozen=True)
class Watch:
    """What is asked of the files and tensors of one checkpoint."""

    wanted: Wanted

    @property
    def _allow(self) -> tuple[str, ...]:
        return self.wanted.entry.allow

    def file(self, path: Path) -> str | None:
        """What was compared, 'SHA-256' or 'CRC-32', now or when the file last had the same size and times.

        None where there is nothing to compare with. UserError for a file that is not as it was written.
        """
        compared[path] = "nothing"
        if "checksum" in self._allow:
            return None
        root = self.wanted.root / "cache"
        stated = None if self.wanted.path else hub.stated(path, root / "hub-files.json")
        kind = "SHA-256" if stated else "CRC-32" if zipfile.is_zipfile(path) else None
        if kind is None:
            return None
        compared[path] = kind
        memo, status = root / MEMO, path.stat()
        found, known = [stamp_of(status), stated or kind], read_memo(memo)
        if known.get(f"{path}") == found:
            return kind
        if status.st_size > LONG:
            say("check", self.wanted.name, f"{path.name}, {status.st_size / GB:.1f} GB, against its {kind}, once")
        damage = _other_sum(path, stated) if stated else _broken_record(path)
        if damage:
            raise Damaged(
                f"{path}: {damage}: the file is damaged, remove it and fetch it again (or 'allow: [checksum]')"
            )
        if is_settled(status):
            write_memo(memo, {**read_memo(memo), f"{path}": found})
        return kind

    def end(self, path: Path, tensors: Mapping[str, Tensor], in_order: list[str]) -> None:
        """UserError when the file ends in zeros, as one does whose download was interrupted.

        `in_order` are its tensors as they lie in it. Vectors may be zero, as biases that were never trained are.
        """
        if "zeros" in self._allow:
            return
        for name in reversed(in_order):
            tensor = tensors[name]
            if _any(tensor.flatten()[-TAIL:]):
                return
            if tensor.numel() > TAIL and (tensor.ndim > 1 or _any(tensor)):
                raise Damaged(
                    f"{path}: ends in zeros, within {name}: its download was interrupted, fetch it again "
                    "(or 'allow: [zeros]')"
                )

    def tensor(self, name: str, tensor: Tensor, parameter: Tensor) -> None:
        """UserError for what cannot be the weights of `parameter`: whole numbers, or a matrix of zeros."""
        if not parameter.is_floating_point():
            return
        if not tensor.is_floating_point() or tensor.itemsize < 2:
            raise Mismatch(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')}: quantised weights, whose scales are not known "
                "here; take the checkpoint in fp32, fp16 or bf16"
            )
        if tensor.ndim > 1 and "zeros" not in self._allow and _is_zero(tensor):
            raise Damaged(f"{name} holds nothing but zeros: the file is damaged, fetch it again (or 'allow: [zeros]')")
        if tensor.ndim > 1 and "zeros" not in self._allow and self._unsummed and not POSITIONS.search(name):
            hole = _hole(tensor)
            if hole:
                raise Damaged(
                    f"{name} has {hole:,} zeros in a row: the file is damaged, fetch it again (or 'allow: [zeros]')"
                )

    @property
    def _unsummed(self) -> bool:
        """Whether a local file of the checkpoint was compared with nothing."""
        own = self.wanted.path
        return own is not None and any(
            kind == "nothing" and (path == own or own in path.parents) for path, kind in compared.items()
        )


def forget(root: Path) -> None:
    """All files of a project are read again for their sums."""
    (root / "cache" / MEMO).unlink(missing_ok=True)
    compared.clear()


def _is_zero(tensor: Tensor) -> bool:
    """Of a mapped tensor few pages are read, unless those are zero."""
    flat = tensor.reshape(-1)
    step = max(1, len(flat) // SAMPLED)
    return len(flat) > 1 and not _any(flat[::step].contiguous()) and not _any(flat)


def _hole(tensor: Tensor) -> int:
    """How many zeros lie in a row where trained weights have none; 0 where nothing is odd.

    Whole rows may be zero: of tokens that never occur, of channels that died. What was lost in a file ends anywhere.
    """
    flat, block = tensor.reshape(-1), HOLE // 4 // tensor.itemsize
    row = len(flat) // next((size for size in tensor.shape if size > 1), 1)
    blocks = flat[: len(flat) // block * block].view(-1, block)
    near = (blocks[:, 0] == 0).nonzero().flatten()
    empty = near[~blocks[near].any(dim=1)].tolist()
    for _, group in itertools.groupby(enumerate(empty), lambda pair: pair[1] - pair[0]):
        at = [number for _, number in group]
        start, end = at[0] * block, (at[-1] + 1) * block
        start -= _zeros(flat[max(0, start - block) : start].flip(0))
        end += _zeros(flat[end : end + block])
        parts = -start % row, end % row
        if (end - start) * tensor.itemsize >= HOLE and max(parts) > min(PART, row // 4):
            return end - start
    return 0


def _zeros(values: Tensor) -> int:
    """How many of them are zero before the first that is not."""
    other = values.nonzero()
    return int(other[0]) if len(other) else len(values)


def _any(tensor: Tensor) -> bool:
    """Whether a bit is set, in any dtype."""
    return bool(tensor.flatten().view(torch.uint8).any())


def _broken_record(path: Path) -> str | None:
    """The first record of a zip archive whose CRC-32 is another; compressed ones are code, refused elsewhere."""
    try:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                if record.compress_type == zipfile.ZIP_STORED:
                    with archive.open(record) as content:
                        while content.read(CHUNK):
                            pass
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return str(error).strip() or type(error).__name__
    return None


def _other_sum(path: Path, stated: str) -> str | None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == stated else f"its SHA-256 begins with {found[:12]}, the hub states {stated[:12]}"
