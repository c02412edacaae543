"""Verb sweep: many variants of an ensemble recipe beside each other, from cached features, nothing encoded again.

On a development split of a labelled data set they are ranked by accuracy, on a competition, which has no labels, by
stability: how many labels change when something else changes a little.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from ...chain import ensemble, features
from ...chain.task import CompetitionTask, Runtime, Task
from ...core.console import progress, say, tell, warn
from ...core.errors import Exists
from ...core.files import atomic_file
from ...core.tables import csv_text, markdown, table
from ...recipes import Sweep, prompts
from ..choosing import refuse_test_labels, sampled_rows, sampled_truth
from ..task import DatasetTask
from .grid import Grid
from .in_memory import EnsemblesInMemory
from .ordering import SHOWN, Ordering, by_accuracy, by_stability
from .variants import Candidate, candidates, grid_of

KEPT = ("accuracy", "95 % interval", "flips near it")  # measures that the chosen recipe's comment says


def sweep(runtime: Runtime, name: str, test_labels: bool = False, overwrite: bool = False) -> Path:
    """Try all candidates of sweeps/<name>.yaml, print and keep the ranking, write the chosen recipe.

    An interruption ranks what was tried, and writes no recipe.
    """
    sweep = runtime.project.sweep(name)
    task = _looked_at(runtime, sweep, test_labels)
    if sweep.out:
        _refuse_overwriting(task, sweep, overwrite)
    folder = task.cache / "sweeps" / name
    task = replace(task, project=task.project.over(folder))  # with the prompt sets that are written there
    grid = grid_of(task, sweep, folder)
    tried = candidates(task, name, sweep, grid)
    labels, seconds, interrupted = _labels(task, tried)
    tried = tried[: len(labels)]
    ordering = _ranked(task, sweep, grid, tried, labels)
    path = _keep(task, name, sweep, ordering, tried)
    say("sweep", name, f"{len(tried):,} candidates, {60 * len(tried) / seconds:,.0f} a minute: {path}")
    if interrupted:
        raise KeyboardInterrupt
    _write_out(task, name, sweep, tried[ordering.order[0]], ordering)
    return path


def _looked_at(task: Runtime, sweep: Sweep, test_labels: bool) -> Task:
    """The images that are looked at; UserError for labels that must not be."""
    if sweep.competition:
        return CompetitionTask.of(task, sweep.competition)
    split = sweep.split or task.project.dataset(sweep.dataset).dev
    labelled = DatasetTask.of(task, sweep.dataset, asked_split=split)
    refuse_test_labels(labelled, test_labels, "'split: {}' in the sweep", "'competition:' instead of 'dataset:'")
    return labelled


def _refuse_overwriting(task: Task, sweep: Sweep, overwrite: bool) -> None:
    path, prompt_set = task.project.root / "ensembles" / f"{sweep.out}.yaml", task.project.root / "prompts" / sweep.out
    if path.exists() and not overwrite:
        raise Exists(f"{path} exists; give another 'out:', or OVERWRITE=1")
    if sweep.vary.templates and prompt_set.exists() and not (overwrite and prompts.is_subset(prompt_set)):
        raise Exists(f"{prompt_set} exists, where a subset of templates would be written; give another 'out:'")


def _labels(task: Task, tried: Sequence[Candidate]) -> tuple[np.ndarray, float, bool]:
    """Labels (K, N) of the candidates as far as it came, the seconds it took, and whether it was interrupted."""
    rows, trials, found, interrupted = sampled_rows(task), EnsemblesInMemory(task), [], False
    for tower in {tower for one in tried for tower in ensemble.towers(one.recipe)}:
        features.of_member(task, tower)
    began = time.perf_counter()
    try:
        with progress("sweep", "candidate", len(tried)) as bar:
            kind = np.min_scalar_type(len(task.class_names))
            for one in tried:
                probs = trials.class_probs(one.recipe)
                found.append(probs.argmax(dim=1).numpy()[rows].astype(kind))
                bar.update()
    except KeyboardInterrupt:
        if len(found) < 2:
            raise
        warn(f"interrupted: only the first {len(found)} of {len(tried)} candidates are ranked, no recipe is written")
        interrupted = True
    return np.stack(found), time.perf_counter() - began, interrupted


def _ranked(task: Task, sweep: Sweep, grid: Grid, tried: Sequence[Candidate], labels: np.ndarray) -> Ordering:
    if not task.labelled:
        return by_stability(labels, grid, [one.place for one in tried[1:]])
    content = [one.recipe.model_dump(mode="json") for one in tried]
    differences = [sum(content[0][key] != own[key] for key in own) for own in content]
    return by_accuracy(labels, sampled_truth(task), differences, sweep.resamples)


def _keep(task: Task, name: str, sweep: Sweep, ordering: Ordering, tried: Sequence[Candidate]) -> Path:
    """Print the head of the ranking; write it as Markdown and all of it as CSV beside the cached features."""
    header = (*ordering.header, "candidate")
    shown = dict.fromkeys([*list(ordering.twins)[:SHOWN], 0])
    more = {k: f" (and {n} that label alike)" if n else "" for k, n in ordering.twins.items()}
    rows = [[*ordering.lines[k], tried[k].words + more.get(k, "")] for k in shown]
    print(table(header, rows))
    tell(ordering.summary)
    ranked = csv_text(header, ([*ordering.lines[k], tried[k].words] for k in ordering.order))
    head = f"# Sweep {name} of {sweep.base}\n\n{len(sampled_rows(task)):,} images, {task.looked_at}; seed {sweep.seed}."
    text = "\n\n".join([head, markdown(header, rows), ordering.summary]) + "\n"
    for suffix, content in (("csv", ranked), ("md", text)):
        with atomic_file(task.cache / "sweeps" / f"{name}.{suffix}") as temporary:
            temporary.write_text(content, encoding="utf-8")
    return task.cache / "sweeps" / f"{name}.md"


def _write_out(task: Task, name: str, sweep: Sweep, best: Candidate, ordering: Ordering) -> None:
    """Write the chosen recipe, and its prompt set when that is a subset of another's templates."""
    if not sweep.out:
        return
    root, content = task.project.root, best.recipe.model_dump(mode="json", exclude_defaults=True)
    subset = task.project.prompts_folder(best.values["prompts"]) if "prompts" in best.values else root
    if task.cache in subset.parents:
        shutil.rmtree(root / "prompts" / sweep.out, ignore_errors=True)
        shutil.copytree(subset, root / "prompts" / sweep.out)
        for use in content["members"].values():
            use["prompts"] = sweep.out
    line = zip(ordering.header, ordering.lines[ordering.order[0]], strict=True)
    measured = ", ".join(f"{key} {value}" for key, value in line if key in KEPT)
    head = f"# Chosen by `make sweep RECIPE=sweeps/{name}.yaml` on {task.looked_at}: {measured}.\n"
    path = root / "ensembles" / f"{sweep.out}.yaml"
    with atomic_file(path) as temporary:
        temporary.write_text(head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    say("sweep", name, f"{best.words}: {path}")
