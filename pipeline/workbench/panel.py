"""The left side of the page: the recipe of a draft with all that can be chosen in its place, as JSON."""

from collections.abc import Mapping, Sequence
from typing import get_args

from ..chain import features
from ..chain.prompt_weights import WEIGHTINGS
from ..chain.rules import WORDS
from ..chain.task import Task
from ..chain.temperatures import MATCHES
from ..core.errors import UserError
from ..core.registry import Registry
from ..maths.refine import STEPS
from ..maths.zeroshot import SPACES
from ..models import has_text
from ..recipes import HEAD, Ensemble
from ..recipes.ensemble import Pooling
from ..recipes.member import Member
from ..recipes.prompts import ClassPrompts, PromptSet, Shared, files_of_classes
from ..recipes.schema import listed

NOT_ENCODED = "not encoded so far; make export MODEL=name encodes it"


def of_recipe(task: Task, name: str, shares: Mapping[Member, float], with_prompts: bool) -> dict:
    """The ensemble of a draft with the members' shares of it, and perhaps the prompts of each class."""
    recipe = task.project.ensemble(name)
    sets = {"sets": [_prompt_set(task, one) for one in prompt_sets(task, recipe)]} if with_prompts else {}
    return {
        "ensemble": name,
        "members": _members(task, name, recipe, shares),
        "keys": {key: getattr(recipe, key) for key in ("threshold", "pooling", "space", "match", "prompt_weights")}
        | {"blend": recipe.blend, "guards": recipe.guards, "witness": recipe.witness or ""},
        "refine": listed(recipe.refine),
        **sets,
    }


def _members(task: Task, name: str, recipe: Ensemble, shares: Mapping[Member, float]) -> list[dict]:
    """The members with their shares; `key` is how the file calls them."""
    keys = Ensemble.read(task.project.ensemble_path(name)).members
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
    encoded = _encoded(task)
    return {
        "pooling": [{"name": name, "forbidden": ""} for name in get_args(Pooling)],
        "blend": [{"name": name, "forbidden": ""} for name in ("prompts", "classes")],
        "space": _allowed(task, SPACES),
        "match": _allowed(task, MATCHES),
        "prompt_weights": _allowed(task, WEIGHTINGS),
        "refine": _allowed(task, STEPS),
        "members": [member for member in encoded if not _image_only(task, member.model)],
        "witness": _witnesses(task, encoded),
    }


def _image_only(task: Task, model: str) -> bool:
    return not has_text(model, task.project.model(model))


def _witnesses(task: Task, encoded: list[Member]) -> list[dict]:
    """None, every tower that is encoded, those without a text tower first, and the entries of such that are not."""
    encoded = sorted(encoded, key=lambda member: not _image_only(task, member.model))
    known = {member.model for member in encoded}
    others = [name for name, entry in task.project.models.items() if entry.family != HEAD and name not in known]
    why = "" if task.rules.test_set else f"uses {WORDS['test_set']}, which {task.where} forbids"
    return [
        {"name": "", "forbidden": ""},
        *({"name": member, "forbidden": why} for member in encoded),
        *({"name": name, "forbidden": why or NOT_ENCODED} for name in others if _image_only(task, name)),
    ]


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


def _encoded(task: Task) -> list[Member]:
    """Members whose image features are all in the cache: the page encodes no image."""
    found = []
    for folder in sorted((task.cache / "features").glob("*@*")):
        try:
            member = task.project.member(folder.name)
            stage = features.stage(task, member)
            if not stage.missing(stage.shard_rows):
                found.append(member)
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
