"""What is unsaved survives a crash: the draft of one running page, in a file that is this page's alone.

They lie in cache/<task>/workbench/draft-<ensemble>-<n>.json. A page that opens takes up one that no running page holds.
"""

import contextlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from ..core.files import atomic_file, try_lock


@dataclass(frozen=True)
class Store:
    """`left` is what an earlier page left unsaved, {} for nothing."""

    path: Path
    left: dict

    @classmethod
    def take(cls, folder: Path, ensemble: str, held: contextlib.ExitStack) -> "Store":
        """The first file that no other page has, until `held` closes; those with something unsaved come first."""
        known = sorted(folder.glob(f"draft-{ensemble}-*.json"))
        new = (folder / f"draft-{ensemble}-{number}.json" for number in itertools.count(1))
        for path in itertools.chain(known, new):
            if held.enter_context(try_lock(path.with_suffix(".lock"))):
                return cls(path, _read(path))
        raise AssertionError("there is always a new one")

    def keep(self, content: dict) -> None:
        """Write what is unsaved; with nothing the file goes."""
        if not content:
            self.path.unlink(missing_ok=True)
            return
        with atomic_file(self.path) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
