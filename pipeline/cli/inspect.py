"""Verb inspect: what an artefact is and what it was made from."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from ..chain.task import Runtime
from ..core import artefacts
from ..core.console import tell
from ..core.errors import Damaged, NotFound
from ._options import Arguments

HELP = "what a cached file is and what it was made from"


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--file", type=Path, required=True, help="a .pt file below cache/")


def run(runtime: Runtime, args: Arguments) -> None:
    show(args.file, runtime.project.root)


def show(file: Path, root: Path = Path()) -> None:
    """Print the contents of one `.pt` artefact and, indented, the artefacts it was made from."""
    if file.is_dir():
        shards = sorted(file.glob("*.pt"))
        if not shards:
            raise NotFound(f"{file}: no .pt files in this folder")
        print(f"{file}: {len(shards)} shards; the first:")
        file = shards[0]
    if not file.is_file():
        raise NotFound(f"no file {file}; artefacts are below cache/")
    artefact = artefacts.load(file)
    if artefact is None:
        raise Damaged(f"{file}: not an artefact of this pipeline, or damaged")
    for key, value in artefact.items():
        if key != "made_from":
            tell(f"  {key:<14} {_described(value)}", " " * 15)
    print("made from")
    tell("\n".join(_history(json.loads(artefact["made_from"]), _index(root / "cache"), "  ")), "  ")


def _described(value) -> str:
    if hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, list):
        return f"list of {len(value)}: {', '.join(map(str, value[:3]))}{', ...' if len(value) > 3 else ''}"
    return str(value)


def _index(folder: Path) -> dict[str, Path]:
    """Where the artefact of each digest lies."""
    return {path.name.removesuffix(".pt"): path for path in folder.glob("*/*/*") if not path.name.startswith(".")} | {
        path.name: path for deep in ("*/*/*/*", "datasets/*/*/*/*") for path in folder.glob(deep) if path.is_dir()
    }


def _history(made_from: dict, index: dict[str, Path], indent: str) -> Iterator[str]:
    for key, value in made_from.items():
        above = [index[digest] for digest in _digests(value) if digest in index] if key != "stage" else []
        yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}"
        for path in above:
            yield f"{indent}  = {path}"
            first = path if path.is_file() else next(iter(sorted(path.glob("*.pt"))), None)
            artefact = artefacts.load(first) if first else None
            if artefact:
                yield from _history(json.loads(artefact["made_from"]), index, indent + "    ")


def _digests(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _digests(part)
