"""Verb clean-cache: list, then remove, what no current recipe can use."""

import contextlib
import os
import shutil
import stat
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..chain import damage, ensemble, features, preprocess, probs, text
from ..chain.columns import KINDS
from ..chain.main_job import stages
from ..chain.task import DTYPES, CompetitionTask, Runtime, Task
from ..core.console import say, tell
from ..core.errors import UserError
from ..labelled import benchmark
from ..labelled.task import DatasetTask
from ..models import has_text
from ..recipes import RESERVED, Ensemble, Project
from ..recipes.member import Member
from ._options import Arguments

HELP = "list and remove what no current recipe uses"
LEFTOVER_AGE = 3600  # seconds; a younger temporary file may belong to a running process


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dry", action="store_true", help="only list")


def run(runtime: Runtime, args: Arguments) -> None:
    clean(runtime.project, args.dry)


def clean(project: Project, dry: bool = False) -> None:
    """Remove artefacts that belong to no present combination of recipes; with `dry` only list them."""
    root = project.root / "cache"
    dead = list(_dead(project, root))
    for path, why in dead:
        tell(f"  {_size(path) / 1e6:>10.1f} MB  {path} ({why})")
    total = sum(_size(path) for path, _ in dead) / 1e6
    for path, _ in [] if dry else dead:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    verb = "would be removed" if dry else "removed"
    say("clean-cache", str(root), f"{len(dead)} unused artefacts, {total:.1f} MB {verb}")


def _size(path: Path) -> int:
    found = filter(None, map(_status, (path, *path.rglob("*"))))
    return sum(status.st_size for status in found if stat.S_ISREG(status.st_mode))


def _status(path: Path) -> os.stat_result | None:
    """None for what is gone by now: other processes write and finish while this one looks."""
    try:
        return path.lstat()
    except OSError:
        return None


def _dead(project: Project, root: Path) -> Iterator[tuple[Path, str]]:
    runtime = Runtime(project)
    competitions = [path for path in sorted(root.glob("*/")) if path.name not in RESERVED]
    yield from _dead_artefacts(runtime, competitions, CompetitionTask)
    yield from _dead_artefacts(runtime, sorted((root / "datasets").glob("*/")), DatasetTask)
    texts = _live_texts(runtime)
    for path in sorted((root / "text").glob("*/*.pt")):
        if path.parent.name not in texts["unknown"] and path.stem not in texts["live"]:
            yield path, "no current models.yaml entry"
    for path in sorted(root.rglob(".*.tmp")):
        if (status := _status(path)) and time.time() - status.st_mtime > LEFTOVER_AGE:
            yield path, "left by an interrupted run"


def _dead_artefacts(runtime: Runtime, folders: list[Path], kind: type[Task]) -> Iterator[tuple[Path, str]]:
    """What no recipe uses in the folders of competitions or data sets."""
    for folder in folders:
        if folder.name not in runtime.project.names(kind.kind):
            yield folder, f"no {kind.kind}/{folder.name}.yaml"
            continue
        task = kind.of(runtime, folder.name)
        live = _live(task)
        if live is None:
            say("clean-cache", folder.name, "kept whole: not all image folders, or networks of recipes, are here")
            continue
        for path in sorted(folder.glob("*/*/*")):
            if (benchmark.features_digest(path) if path.parts[-3] == "cells" else path.name) not in live:
                yield path, "no current recipe"


def _live(task: Task) -> set[str] | None:
    """Digests that some combination of current recipes gives; None when that cannot be known."""
    sources = task.known_sources()
    if sources is None:
        return None
    live: set[str] = set()
    for source in {task.source, *sources}:
        for dtype in DTYPES:
            one = replace(task, data=source, dtype_name=dtype)
            try:
                splits = one.every_split()
                for split in splits:
                    split.images  # noqa: B018  (is the folder here?)
                live.update(*map(_digests, splits))
            except UserError:
                return None
    return live


def _digests(task: Task) -> Iterator[str]:
    project, recipes = task.project, task.project.names("preprocess")
    for recipe in recipes:
        yield from (room.stage(task, recipe).digest for room in (preprocess, damage))
    for model in _usable(project):
        for recipe in recipes:
            yield from _of_member(task, project.member(model, recipe))
    for name in project.names("ensembles"):
        if _fits(task, project.ensemble(name)):
            yield from (stage.digest for stage in stages(task, name))


def _of_member(task: Task, member: Member) -> Iterator[str]:
    yield features.stage(task, member).digest
    if member.is_head:
        with contextlib.suppress(UserError):  # of a head with other classes there is nothing
            yield probs.stage(task, member).digest
    elif member.model in _usable(task.project, text=True):
        yield text.digest(task, member.model)  # noted where features were encoded elsewhere
        yield from (probs.stage(task, member, kind).digest for kind in KINDS)


def _fits(task: Task, recipe: Ensemble) -> bool:
    """Whether the weights of a recipe's members are here, and its prompt sets about the task's classes."""
    if not all(member.model in _usable(task.project, text=not member.is_head) for member in recipe.members):
        return False
    if recipe.witness and recipe.witness.model not in _usable(task.project):
        return False
    try:
        return all(ensemble.part(task, recipe, member) for member in recipe.members)
    except UserError:
        return False


def _usable(project: Project, text: bool = False) -> list[str]:
    """Entries whose weights can be identified (a local entry whose file is away cannot); with a text tower if asked."""
    return [
        name
        for name, entry in project.models.items()
        if all(
            part.weights is None or part.sha256 or (project.root / part.weights).exists()
            for part in (entry, project.model(project.member(name).tower.model))
        )
        and not (text and not has_text(name, entry))
    ]


def _live_texts(runtime: Runtime) -> dict[str, set[str]]:
    usable = _usable(runtime.project, text=True)
    runs = [replace(runtime, dtype_name=dtype) for dtype in DTYPES]
    live = {text.digest(one, name) for name in usable for one in runs}
    return {"live": live, "unknown": set(runtime.project.models) - set(usable)}
