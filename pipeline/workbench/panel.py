"""The left side of the page: the recipe of a draft with all that can be chosen in its place, as JSON."""

from collections.abc import Sequence
from typing import get_args

from ..chain import ensemble, features
from ..chain.prompt_weights import WEIGHTINGS
from ..chain.rules import WORDS
from ..chain.task import Task
from ..chain.temperatures import MATCHES
from ..core.errors import UserError
from ..core.registry import Registry
from ..maths.refine import STEPS
from ..maths.zeroshot import SPACES
from ..recipes import Ensemble
from ..recipes.ensemble import Pooling
from ..recipes.prompts import ClassPrompts, PromptSet, Shared, files_of_classes
from ..recipes.schema import listed


def of_recipe(task: Task, name: str, with_prompts: bool) -> dict:
    """The ensemble of a draft, and perhaps the prompts of each class."""
    recipe = task.project.ensemble(name)
    sets = {"sets": [_prompt_set(task, one) for one in prompt_sets(task, recipe)]} if with_prompts else {}
    return {
        "ensemble": name,
        "members": _members(task, name, recipe),
        "keys": {key: getattr(recipe, key) for key in ("threshold", "pooling", "space", "match", "prompt_weights")}
        | {"blend": recipe.blend, "guards": recipe.guards},
        "refine": listed(recipe.refine),
        **sets,
    }


def _members(task: Task, name: str, recipe: Ensemble) -> list[dict]:
    """The members with their shares; `key` is how the file calls them."""
    shares, keys = ensemble.members(recipe), Ensemble.read(task.project.ensemble_path(name)).members
    return [
        {"member": member, "key": key, "weight": use.weight, "share": shares.get(member, 0.0), "prompts": use.prompts}
        for key, (member, use) in zip(keys, recipe.members.items(), strict=True)
    ]


def prompt_sets(task: Task, recipe: Ensemble) -> list[str]:
    """The prompt sets that an ensemble's members use, the task's own first."""
    own = [use.prompts for use in recipe.members.values() if use.prompts]
    return list(dict.fromkeys([task.prompts_name, *own]))


def choices(task: Task) -> dict:
    """What each key may be, with the reason why some are forbidden; and the members that could be added."""
    return {
        "pooling": [{"name": name, "forbidden": ""} for name in get_args(Pooling)],
        "blend": [{"name": name, "forbidden": ""} for name in ("prompts", "classes")],
        "space": _allowed(task, SPACES),
        "match": _allowed(task, MATCHES),
        "prompt_weights": _allowed(task, WEIGHTINGS),
        "refine": _allowed(task, STEPS),
        "members": _encoded(task),
    }


def _allowed(task: Task, registry: Registry) -> list[dict]:
    """The names of a registry, each with why the task's rules forbid it ('' where they do not)."""
    found = []
    for name, function in sorted(registry.items()):
        use = function.uses
        forbidden = use != "image" and not getattr(task.rules, use)
        why = f"uses {WORDS[use]}, which {task.where} forbids" if forbidden else ""
        about = (function.__doc__ or "").strip().partition("\n")[0]
        found.append({"name": name, "forbidden": why, "about": about})
    return found


def _encoded(task: Task) -> list[str]:
    """Members whose image features are all in the cache: the page encodes no image."""
    found = []
    for folder in sorted((task.cache / "features").glob("*@*")):
        try:
            stage = features.stage(task, task.project.member(folder.name))
            if not stage.missing(stage.shard_rows):
                found.append(folder.name)
        except (UserError, OSError):
            continue  # of a model or recipe that is gone
    return found


def _prompt_set(task: Task, name: str) -> dict:
    folder = task.project.prompts_folder(name)
    path = folder / "_shared.yaml"
    shared = Shared.read(path) if path.is_file() else Shared()
    files = files_of_classes(folder, task.class_names, shared.classes == "any")
    prompts = task.prompts_of(name)
    return {
        "name": name,
        "templates": list(shared.templates),
        "classes": [
            _class(class_name, files[class_name][1], prompts, label)
            for label, class_name in enumerate(task.class_names)
        ],
    }


def _class(class_name: str, recipe: ClassPrompts, prompts: PromptSet, label: int) -> dict:
    """A class's own entries, and its columns: prompt, weight and the template that made it."""
    own: Sequence[int] = [column for column, other in enumerate(prompts.prompt_class) if other == label]
    return {
        "class": class_name,
        "name": recipe.name or class_name,
        **{key: list(getattr(recipe, key)) for key in ("aliases", "templates", "without", "prompts")},
        "first": own[0],
        "columns": [[prompts.prompts[column], prompts.weights[column], prompts.templates[column]] for column in own],
    }
