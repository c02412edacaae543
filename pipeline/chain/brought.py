"""Features that were encoded on another machine and brought here: with DTYPE=auto their dtype counts, not ours.

The dtype is part of what features are made from. A GPU elsewhere computes in another one than the CPU here; without a
mark beside the cache its features would never be asked for.
"""

from collections.abc import Callable
from pathlib import Path

from .task import DTYPES, Runtime, Task


def dtype(runtime: Runtime, subject: str, digest_in: Callable[[str], str]) -> str | None:
    """The dtype in which features of a member, or of a model's prompts, were brought last; None where none were.

    `digest_in` gives the digest of the features for a dtype. None as well where DTYPE asks for one.
    """
    if runtime.dtype_name != "auto" or not isinstance(runtime, Task) or not _folder(runtime, subject).is_dir():
        return None
    marks = {name: _folder(runtime, subject) / digest_in(name) for name in DTYPES}
    there = [name for name, mark in marks.items() if mark.exists()]
    return max(there, key=lambda name: marks[name].stat().st_mtime_ns, default=None)


def noted(task: Task, subject: str, digest: str) -> bool:
    """Whether some of these features were brought."""
    return (_folder(task, subject) / digest).exists()


def note(task: Task, subject: str, digest: str) -> None:
    """From now on these features are preferred to those that this machine would compute."""
    folder = _folder(task, subject)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).touch()


def _folder(task: Task, subject: str) -> Path:
    return task.cache / "brought" / subject
