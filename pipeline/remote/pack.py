"""One zip with all that the missing features need: program, recipes, local weights, images on demand, and run.py."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from ..chain.task import CompetitionTask
from ..core.console import next_step, say, tell
from ..core.errors import UserError
from ..core.extras import pins
from ..core.files import atomic_file
from ..images.listing import ImageFiles
from ..images.ops import files as network_files
from . import missing, needs, notebook, wheel
from .missing import IMAGES, PACK, Listed, Pack

MEMOS = ("behaviour.json", "commits.json")  # what was first made of images, and which commit of a hub was first used
ALREADY_SMALL = (".jpg", ".jpeg", ".png", ".webp", ".safetensors", ".bin", ".pt", ".pth", ".whl")


def pack(task: CompetitionTask, name: str, out: Path | None, with_images: bool, history: bool) -> Path | None:
    """Write the pack of ensemble recipe `name`, saying what it needs; None when nothing is missing.

    `history` packs every prompt that was ever written or encoded; `out` is the zip, by default packs/<competition>.zip.
    """
    asked = asked_of(task, name, history)
    if asked.images and not isinstance(task.images, ImageFiles):
        raise UserError(
            f"{task.source}: a pack needs images in files of a folder; use LAUNCH=ray, or copy them into one"
        )
    if not asked.models:
        say("pack", name, "nothing is missing here: make submit encodes nothing")
        return None
    tell(needs.tell(task, asked))
    out = out or task.project.root / "packs" / f"{task.name}.zip"
    with (
        atomic_file(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
    ):
        for place, content in _members(task, asked, with_images):
            _add(archive, place, content)
    where = "with its images" if with_images else f"its {len(task.images.ids)} images are looked for there"
    say("pack", name, f"{out}, {out.stat().st_size / 1e6:.1f} MB, {where}")
    next_step(f"unzip {out.name} there, python run.py; here make unpack FILE={task.name}.features")
    return out


def asked_of(task: CompetitionTask, name: str, history: bool = False) -> Pack:
    """What the pack asks for."""
    images, texts = list(missing.images(task, name)), list(missing.texts(task, name, history))
    asked = Pack(
        competition=task.name,
        data=task.data,
        shard=task.shard_rows,
        images=images,
        texts=texts,
        gpu_gb={},
        requirements=[*wheel.requirements(), *(pins("upscale") if any("networks" in i.facts for i in images) else ())],
    )
    root, project = task.project.root, task.project
    sizes = {model: needs.gpu_gb(project.model(model), root, task.dtype_name) for model in asked.models}
    return asked.model_copy(update={"gpu_gb": sizes})


def _members(task: CompetitionTask, asked: Pack, with_images: bool) -> Iterator[tuple[str, bytes | Path]]:
    """(name in the zip, content or file) of everything."""
    slug = (task.recipe.leaderboard or {}).get("kaggle")
    yield PACK, asked.model_dump_json(indent=1).encode()
    listed = Listed.of(task)
    yield IMAGES, json.dumps(vars(listed)).encode()
    yield wheel.name(), wheel.content()
    yield "run.py", (Path(__file__).parent / "run.py").read_bytes()
    yield "run.ipynb", notebook.notebook(task.name).encode()
    yield "kernel-metadata.json", notebook.kernel_metadata(task.name, slug).encode()
    yield from _recipes(task, asked)
    yield from _weights(task, asked)
    if with_images and isinstance(task.images, ImageFiles):
        paths = task.images.paths()
        for row in listed.wanted(asked):
            yield f"images/{_packable(listed.ids[row])}", Path(paths[row])


def _recipes(task: CompetitionTask, asked: Pack) -> Iterator[tuple[str, bytes | Path]]:
    project = task.project
    yield f"project/competitions/{task.name}.yaml", project.path("competitions", task.name)
    for name in sorted({one.preprocess for one in asked.images}):
        path = project.path("preprocess", name)
        yield f"project/preprocess/{name}.yaml", path
        for file in network_files(project.preprocess(name), project.root, str(path)):
            yield f"project/{_below(project.root, file, f'{path}: network')}", file
    for name in MEMOS:
        if (project.root / "cache" / name).is_file():
            yield f"project/cache/{name}", project.root / "cache" / name


def _weights(task: CompetitionTask, asked: Pack) -> Iterator[tuple[str, bytes | Path]]:
    """The entries of the models, their local weights beside them; those of a hub are downloaded there."""
    entries, root = {}, task.project.root
    for name in asked.models:
        entry = task.project.model(name)
        entries[name] = entry.model_dump(mode="json", exclude_defaults=True)
        if entry.weights and not entry.sha256:  # those at a URL are fetched there
            entries[name]["weights"] = f"weights/{name}/{Path(entry.weights).name}"
            yield from _files(root / entry.weights, f"project/{entries[name]['weights']}")
        if entry.tokenizer and (root / entry.tokenizer).exists():
            yield from _files(
                root / entry.tokenizer, f"project/{_below(root, root / entry.tokenizer, f'{name}: tokenizer')}"
            )
    yield "project/models.yaml", yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).encode()


def _files(path: Path, place: str) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield place, path
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield f"{place}/{file.relative_to(path).as_posix()}", file


def _below(root: Path, path: Path, where: str) -> str:
    """The path of a file from the project's folder, which must be the same there."""
    try:
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(root)).as_posix()
    except ValueError:
        raise UserError(f"{where}: {path} is not below the project's folder; copy it there to pack it") from None


def _packable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name!r}: its name is not UTF-8, which a zip cannot hold; pack without IMAGES=1") from None
    return name


def _add(archive: zipfile.ZipFile, place: str, content: bytes | Path) -> None:
    if isinstance(content, Path):
        small = place.lower().endswith(ALREADY_SMALL)
        archive.write(content, place, zipfile.ZIP_STORED if small else zipfile.ZIP_DEFLATED)
    else:
        archive.writestr(place, content)
