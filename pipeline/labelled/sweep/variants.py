"""The candidates of a sweep: what its recipe varies as a grid, and the ensemble recipe of each place in it."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ...chain import ensemble, rules
from ...chain.task import Task
from ...core.console import say
from ...core.errors import Mismatch, NotFound, UserError
from ...recipes import Ensemble, Sweep, prompts
from .grid import Grid, simplex

MOST = 100_000  # candidates

# keys of a grid: what costs most to change comes first, and so changes least often
ORDER = ("prompts", "blend", "match", "space", "weights", "pooling", "prompt_weights", "threshold", "refine")


@dataclass(frozen=True)
class Candidate:
    """One variant: its place in the grid, its values there (nothing for the base itself), and the whole recipe."""

    place: tuple[int, ...]
    values: dict
    recipe: Ensemble

    @property
    def words(self) -> str:
        return ", ".join(f"{key} {_word(value)}" for key, value in self.values.items()) or "the base as it is"


def grid_of(task: Task, sweep: Sweep, folder: Path) -> Grid:
    """What is varied: {key: values}. Subsets of templates are written below `folder`, as prompt sets of their own."""
    vary = sweep.vary
    weights = _weights(sweep, len(task.project.ensemble(sweep.base).members))
    values = {key: getattr(vary, key) for key in ORDER if getattr(vary, key)}
    values |= {"weights": weights} if weights else {}
    if vary.templates:
        sets = values.get("prompts") or (task.prompts_name,)
        values["prompts"] = tuple(p for name in sets for p in (name, *_subsets(task, name, sweep, folder / "prompts")))
    grid = Grid({key: tuple(values[key]) for key in ORDER if key in values})
    if sweep.random is None and grid.size > MOST:
        raise UserError(f"vary: {grid.size:,} combinations are too many; draw some of them, e.g. random: 5000")
    return grid


def _weights(sweep: Sweep, members: int) -> Sequence[tuple[float, ...]]:
    """The member weights that are tried; none where they are not varied."""
    steps = sweep.vary.weight_steps
    if steps:
        count = math.comb(steps + members - 1, members - 1)
        if count > MOST:
            raise UserError(f"vary.weight_steps: {count:,} ways to share among {members} members; give fewer steps")
        return simplex(members, steps)
    wrong = [weights for weights in sweep.vary.weights if len(weights) != members]
    if wrong:
        raise Mismatch(f"vary.weights: {list(wrong[0])} is not of the {members} members of {sweep.base}")
    return sweep.vary.weights


def _subsets(task: Task, name: str, sweep: Sweep, folder: Path) -> list[str]:
    """Names of prompt sets with random subsets of the templates of another; they are written below `folder`."""
    source = task.project.prompts_folder(name)
    if not set(task.prompts_of(name).templates) - {""}:
        raise NotFound(f"vary.templates: {source} has no templates to choose from")
    templates = prompts.Shared.read(source / "_shared.yaml").templates
    generator, kept = random.Random(f"{sweep.seed} {name}"), []
    for number in range(sweep.vary.templates.number):
        keep = generator.sample(templates, max(1, round(sweep.vary.templates.share * len(templates))))
        kept.append(f"{name}.subset-{number + 1:03d}")
        prompts.write_subset(source, folder / kept[-1], task.class_names, keep)
    return kept


def candidates(task: Task, name: str, sweep: Sweep, grid: Grid) -> list[Candidate]:
    """The base and then all others; combinations that no recipe may have are left out, and that is said.

    UserError for what the rules forbid, and where no combination is left.
    """
    base, path = task.project.ensemble(sweep.base), task.project.path("sweeps", name)
    rules.check(task, sweep.base)
    found, refused = [Candidate((), {}, base)], []
    for place in grid.candidates(sweep.random, sweep.seed):
        values = grid.of(place)
        try:
            recipe = task.project.complete(Ensemble.parse(varied(base, values), str(path)), path)
            ensemble.check(task, recipe)
        except UserError as error:
            refused.append(error)
            continue
        rules.check_recipe(task, recipe, path, "vary")
        found.append(Candidate(place, values, recipe))
    if len(found) == 1:
        raise refused[0]
    if refused:
        say("sweep", name, f"{len(refused)} combinations that no recipe may have are left out, e.g. {refused[0]}")
    return found


def varied(base: Ensemble, values: dict) -> dict:
    """The base's content with other values."""
    content = base.model_dump(mode="json")
    content["members"] = {
        member: use if isinstance(use, dict) else {"weight": use} for member, use in content["members"].items()
    }
    for key, value in values.items():
        if key == "weights":
            for use, weight in zip(content["members"].values(), value, strict=True):
                use["weight"] = float(weight)
        elif key == "prompts":
            for use in content["members"].values():
                use["prompts"] = value
        else:
            content[key] = value
    if content["match"] != "temperature":
        for use in content["members"].values():
            use.pop("temperature", None)
    if not content["refine"]:
        content["witness"] = None
    return content


def _word(value) -> str:
    """A value in a table; lists as in YAML."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return "/".join(f"{v:.3g}" for v in value)
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
