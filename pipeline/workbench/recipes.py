"""The recipe files that a page edits: where they are, what is in them, and writing them."""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UserError
from ..core.files import atomic_file
from ..recipes import Project

FILE = re.compile(r"[A-Za-z0-9_][\w.-]{0,250}\.yaml")
LARGEST = 4_000_000  # bytes of all texts in an address


@dataclass(frozen=True)
class RecipeFiles:
    """The ensemble's file and the folders of its prompt sets, below the project or as they come with the package."""

    project: Project
    ensemble: str
    sets: tuple[str, ...]

    def read(self) -> dict[str, str]:
        """{name in the project: text}; UserError for what is no text."""
        return {name: _text(path) for name, path in self._paths().items()}

    def stamps(self) -> dict[str, tuple[int, int]]:
        """What changes when a file does."""
        found = {}
        for name, path in self._paths().items():
            status = path.stat()
            found[name] = status.st_mtime_ns, status.st_size
        return found

    def _paths(self) -> dict[str, Path]:
        own = f"ensembles/{self.ensemble}.yaml"
        found = {own: self.project.find(own)}
        for name in self.sets:
            folder = self.project.find(f"prompts/{name}")
            found |= {f"prompts/{name}/{path.name}": path for path in sorted(folder.glob("*.yaml"))}
        return {name: path for name, path in found.items() if path.is_file()}

    def may_be(self, name: str) -> bool:
        """Whether a name is one of these files, or could be."""
        folder, _, file = name.rpartition("/")
        if name == f"ensembles/{self.ensemble}.yaml":
            return True
        return folder in {f"prompts/{one}" for one in self.sets} and bool(FILE.fullmatch(file))

    def write(self, changed: Iterable[str], texts: Mapping[str, str]) -> list[Path]:
        """Write files of the draft, each whole or not at all; returns where.

        A prompt set that came with the package is written whole: the project's own goes before it.
        """
        changed = set(changed)
        for name in self.sets:
            own = {one for one in texts if one.startswith(f"prompts/{name}/")}
            if changed & own and not (self.project.root / "prompts" / name).is_dir():
                changed |= own
        written = []
        for name in sorted(changed):
            path = self.project.root / name
            with atomic_file(path) as temporary:
                temporary.write_bytes(texts.get(name, "").encode())
            written.append(path)
        return written


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def packed(texts: Mapping[str, str]) -> str:
    """Texts of files as a short word for an address; '' for none."""
    if not texts:
        return ""
    return (
        base64.urlsafe_b64encode(zlib.compress(json.dumps(texts, ensure_ascii=False).encode(), 9)).decode().rstrip("=")
    )


def unpacked(word: str, files: RecipeFiles) -> dict[str, str]:
    """What `packed` made; UserError for anything else, and for other files than those of the page."""
    try:
        content = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
        stream = zlib.decompressobj()
        text = stream.decompress(content, LARGEST)
        found = json.loads(text) if not stream.unconsumed_tail else None
    except (ValueError, zlib.error, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise UserError("the edits in the address cannot be read; it was cut or changed")
    others = [name for name in found if not files.may_be(name)]
    if others:
        raise UserError(f"the edits in the address are of another recipe: {others[0][:100]!r}")
    return found
