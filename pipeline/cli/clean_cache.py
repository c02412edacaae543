"""Verb clean-cache: list, then remove, what no current recipe can use."""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..chain import ensemble, infer, preprocess, problems, threshold
from ..chain.task import DTYPES, Task
from ..core.console import say
from ..core.digests import digest_of
from ..core.errors import UserError
from ..labelled import benchmark
from ..labelled.task import LabelledTask
from ..models import has_text
from ..recipes import RESERVED, Ensemble, Project

LEFTOVER_AGE = 3600  # seconds; a younger temporary file may belong to a running process


def run(project: Project, dry: bool = False) -> None:
    """Remove artefacts that belong to no present combination of recipes; with `dry` only list them."""
    root = project.root / "cache"
    dead = list(_dead(project, root))
    for path, why in dead:
        print(f"  {_size(path) / 1e6:>10.1f} MB  {path} ({why})")
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
    competitions = [path for path in sorted(root.glob("*/")) if path.name not in RESERVED]
    yield from _dead_artefacts(competitions, "competitions", lambda name: Task(name, project))
    datasets = sorted((root / "datasets").glob("*/"))
    yield from _dead_artefacts(datasets, "datasets", lambda name: LabelledTask(name, project))
    texts = _live_texts(project)
    for path in sorted((root / "text").glob("*/*.pt")):
        if path.parent.name not in texts["unknown"] and path.stem not in texts["live"]:
            yield path, "no current models.yaml entry"
    for path in sorted(root.rglob(".*.tmp")):
        if (status := _status(path)) and time.time() - status.st_mtime > LEFTOVER_AGE:
            yield path, "left by an interrupted run"


def _dead_artefacts(folders: list[Path], kind: str, task_of: Callable[[str], Task]) -> Iterator[tuple[Path, str]]:
    """What no recipe uses in the folders of competitions or data sets."""
    for folder in folders:
        task = task_of(folder.name)
        if folder.name not in task.project.names(kind):
            yield folder, f"no {kind}/{folder.name}.yaml"
            continue
        live = _live(task)
        if live is None:
            say("clean-cache", folder.name, "kept whole: not all image folders, or networks of recipes, are here")
            continue
        for path in sorted(folder.glob("*/*/*")):
            if (benchmark.features_digest(path) if path.parts[-3] == "cells" else path.name) not in live:
                yield path, "no current recipe"


def _live(task: Task) -> set[str] | None:
    """Digests that some combination of current recipes gives; None when that cannot be known."""
    sources = task.known_sources
    if sources is None:
        return None
    live: set[str] = set()
    for source in {task.source, *sources}:
        for dtype in DTYPES:
            one = replace(task, data=source, dtype_name=dtype)
            try:
                splits = one.every_split() if isinstance(one, LabelledTask) else [one]
                for split in splits:
                    split.images  # noqa: B018  (is the folder here?)
                live.update(*map(_digests, splits))
            except UserError:
                return None
    return live


def _digests(task: Task) -> Iterator[str]:
    project, recipes = task.project, task.project.names("preprocess")
    for recipe in recipes:
        yield from (stage.artefact(task, recipe).digest for stage in (preprocess, problems))
    for model in _usable(project):
        for recipe in recipes:
            member = f"{model}@{recipe}"
            yield infer.features_artefact(task, member).digest
            if project.is_head(member):
                with contextlib.suppress(UserError):  # of a head with other classes there is nothing
                    yield infer.artefact(task, member).digest
            if model in _usable(project, text=True):
                yield from (infer.artefact(task, member, columns).digest for columns in infer.COLUMNS)
    for name in project.names("ensembles"):
        recipe = project.ensemble(name)
        usable = all(
            infer.split(member)[0] in _usable(project, text=not project.is_head(member)) for member in recipe.members
        )
        if usable and _fits(task, recipe):
            yield from (ensemble.part(task, recipe, member).digest for member in ensemble.members(recipe))
            yield ensemble.artefact(task, name).digest
            yield threshold.artefact(task, name).digest


def _fits(task: Task, recipe: Ensemble) -> bool:
    """Whether the prompt sets that a recipe names are about the task's classes: another competition's are not."""
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
            part.weights is None or (project.root / part.weights).exists()
            for part in (entry, project.model(infer.split(project.tower(f"{name}@{entry.preprocess}"))[0]))
        )
        and not (text and not has_text(name, entry))
    ]


def _live_texts(project: Project) -> dict[str, set[str]]:
    usable = _usable(project, text=True)
    task = Task("", project)
    tasks = [replace(task, dtype_name=dtype) for dtype in DTYPES]
    live = {digest_of(infer.text_made_from(one, name)) for name in usable for one in tasks}
    return {"live": live, "unknown": set(project.models) - set(usable)}
