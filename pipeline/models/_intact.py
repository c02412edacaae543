"""Whether a file of weights is as it was written, and its tensors are weights at all.

A torch file has a CRC-32 of every record, which torch never compares; a hub states the SHA-256 of a file. A file is
read once for that: what was found is remembered by its size and times in cache/intact.json. A local .safetensors has
no checksum; what an interrupted download leaves in it is zeros, which are looked for.
"""

import hashlib
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


def forget(root: Path) -> None:
    """All files of a project are read again for their sums."""
    (root / "cache" / MEMO).unlink(missing_ok=True)
    compared.clear()


def _is_zero(tensor: Tensor) -> bool:
    """Of a mapped tensor few pages are read, unless those are zero."""
    flat = tensor.reshape(-1)
    step = max(1, len(flat) // SAMPLED)
    return len(flat) > 1 and not _any(flat[::step].contiguous()) and not _any(flat)


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
