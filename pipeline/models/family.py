"""What a family of checkpoints is: its traits, how it is added, what its functions are given. Nothing imports torch.

A family is one module with `FAMILY = Family(...)`, `load(wanted)`, and `export(wanted, tower, folder)` if its weights
can be trained and written back. Here a file is enough; from elsewhere `register("my_package.my_family")`. The traits
are read without running the file, since it imports torch and a library that takes seconds: they are literals.
"""

import ast
import functools
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import Mismatch
from ..core.registry import find
from ..recipes import HEAD, ModelEntry
from . import stored

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Family:
    """The traits of a family."""

    weights: tuple[str, ...] = ()  # what they are called in a folder or hub repository, the first that exists
    text: bool = True  # it has a text tower
    trainable: bool = False  # it has `export`
    any_size: bool = False  # of convolutions, which take any size: 'allow: [size]'
    shorter_context: bool = False  # an entry may ask for fewer tokens than the checkpoint's
    reading: int = 1  # raised when the same prompts become other tokens: features of texts are computed again


@dataclass(frozen=True)
class Wanted:
    """One tower of a checkpoint, and where and how it shall run: what `load` and `export` of a family are given."""

    name: str
    entry: ModelEntry
    root: Path
    tower: str = "image"
    device: "torch.device | None" = None
    dtype: str = "fp32"
    max_memory: dict[int | str, int | str] | None = None  # of the devices, instead of what is free there

    @property
    def where(self) -> str:
        """How an error begins."""
        return f"{self.entry.written_in}: {self.name}"

    @property
    def path(self) -> Path | None:
        """The entry's own weights, a file or a folder; None: they are on a hub."""
        return stored.place(self.entry, self.root)


# the self-checks of a checkpoint (_checks.py, and those of one family) that an entry may silence by name
CHECKS = {
    "activation": "QuickGELU or GELU",
    "checksum": "of the file: SHA-256 of the hub, CRC-32 of a torch file",
    "mean": "of the pixels",
    "position_embedding": "positions for another number of pixels, interpolated",
    "prompts_cut": "prompts that are longer than the context",
    "resize_mode": "how images that are not square are resized",
    "size": "pixels a side",
    "std": "of the pixels",
    "unexpected_keys": "weights that the model has no place for",
    "vocabulary": "a tokenizer with fewer tokens than the embedding has rows",
    "zeros": "matrices of nothing else, and files that end in them",
}
FAMILIES: dict[str, str] = {}  # {name: dotted path of its module}


def register(module: str, name: str | None = None) -> None:
    """Add the family of a module, by its dotted path; called like the module unless it is given a name."""
    FAMILIES[name or module.rpartition(".")[2]] = module


def traits(name: str, entry: ModelEntry) -> Family:
    """Those of the entry's family; UserError when there is no such family, or the entry is none for it."""
    for check in entry.allow:
        find(CHECKS, "check", check, f"{entry.written_in}: {name}: allow")
    found = _declared(find(FAMILIES, "family", entry.family, f"{entry.written_in}: {name}"))
    if "size" in entry.allow and not found.any_size:
        raise Mismatch(
            f"{entry.written_in}: {name}: allow: 'size' is for backbones of family "
            f"{' or '.join(having(any_size=True))}, whose convolutions take any size; with position embeddings it is "
            "'position_embedding'"
        )
    return found


def having(**wanted) -> list[str]:
    """The names of the families with these traits."""
    found = {name: _declared(module) for name, module in FAMILIES.items()}
    return [name for name, one in found.items() if all(getattr(one, key) == value for key, value in wanted.items())]


def module(entry: ModelEntry):
    """The module of the entry's family, imported now."""
    return importlib.import_module(FAMILIES[entry.family])


@functools.cache
def _declared(module: str) -> Family:
    """The traits in a module's file."""
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["FAMILY"]:
            return Family(**{word.arg: ast.literal_eval(word.value) for word in node.value.keywords})
    raise ValueError(f"{module} declares no FAMILY")


register(f"{__package__}.heads", HEAD)
for _file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    if "\nFAMILY = " in _file.read_text(encoding="utf-8"):
        register(f"{__package__}.{_file.stem}")
