"""How a submission was made: enough to make it again, and to see what differs from another."""

import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..recipes import Ensemble
from ..recipes.member import Member
from ..recipes.prompts import PromptSet
from . import damage, ensemble, features, rules
from .checkpoints import checkpoint
from .classes import Decision
from .labels import Labels
from .prompt_weights import prompts_of
from .stage import made
from .task import Task

PACKAGES = ("torch", "open_clip_torch", "transformers", "pillow", "numpy", "accelerate")


def of_decision(task: Task, name: str, decision: Decision | Labels, histogram: dict[str, int]) -> dict:
    """The JSON beside a submission of ensemble recipe `name`."""
    project, recipe = task.project, task.project.ensemble(name)
    problems = damage.recorded(task, ensemble.preprocess_recipes(recipe))
    return {
        "competition": {"name": task.name, **task.recipe.model_dump(mode="json")},
        "data": task.source,
        "images": {"count": len(task.images.ids), "digest": task.images_digest()},
        "recipe": {"name": name, **recipe.model_dump(mode="json")},
        "prompts": _prompts(task.prompts),
        "files": recipe_files(task, name),
        "members": {member: _of_part(task, name, member) for member in ensemble.members(recipe)},
        **_found_weights(task, recipe),
        **({"witness": {recipe.witness: _of_witness(task, recipe.witness)}} if recipe.witness else {}),
        "uses": rules.uses(project, name),
        "refinement": [asdict(outcome) for outcome in decision.outcomes],
        "digest": decision.probs.digest,
        **surroundings(project.root),
        "histogram": histogram,
        "damaged": [[task.images.ids[row], done, why] for row, done, why in problems if done != damage.SEVERAL],
    }


def recipe_files(task: Task, name: str) -> dict[str, str]:
    """The text of each file in which an ensemble and its prompt sets are written, by its name in the project."""
    project, recipe = task.project, task.project.ensemble(name)
    own = [use.prompts for use in recipe.members.values() if use.prompts]
    sets = dict.fromkeys([task.prompts_name, *own])
    found = {} if "@" in name else {f"ensembles/{name}.yaml": project.ensemble_path(name)}
    for prompt_set in sets:
        folder = project.prompts_folder(prompt_set)
        found |= {f"prompts/{prompt_set}/{path.name}": path for path in sorted(folder.glob("*.yaml"))}
    return {name: path.read_bytes().decode("utf-8-sig") for name, path in found.items()}


def _prompts(prompts: PromptSet) -> dict:
    return {"count": len(prompts.prompts), "digest": prompts.digest}


def _of_part(task: Task, name: str, member: Member) -> dict:
    recipe = task.project.ensemble(name)
    own, digest = recipe.members[member].prompts, ensemble.part(task, recipe, member).digest
    facts = {"prompts": {"set": own, **_prompts(prompts_of(task, recipe, member))}} if own else {}
    return {"digest": digest, **facts, **of_member(task, member)}


def _found_weights(task: Task, recipe: Ensemble) -> dict:
    """The weights that were found, or why they are even; nothing where they are written."""
    if recipe.weights == "given":
        return {}
    parts = {member: made(ensemble.part(task, recipe, member)) for member in ensemble.members(recipe)}
    blend = ensemble.Blend(task, recipe, parts)
    return {"weights": {"found": blend.weights, "even": blend.why_even}}


def _of_witness(task: Task, witness: Member) -> dict:
    return {"digest": features.stage(task, witness).digest, **of_member(task, witness)}


def of_member(task: Task, member: Member) -> dict:
    """Checkpoint, dtype, and the two recipes of a member."""
    return {
        **checkpoint(task, member.model, features.stage(task, member).made_from["dtype"]),
        "model": task.project.model(member.model).model_dump(mode="json", exclude_none=True),
        "preprocess": task.project.preprocess(member.preprocess).content(),
    }


def surroundings(root: Path) -> dict:
    """What code it was made with: versions of packages, and the project's commit."""
    return {"versions": {package: _version(package) for package in PACKAGES}, "git": _git(root)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(root: Path) -> dict | None:
    """Commit and whether anything tracked was changed since; None outside a git repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain", "-uno").strip())}
    except (OSError, subprocess.CalledProcessError):
        return None
