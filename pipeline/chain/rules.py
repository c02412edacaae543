"""What an ensemble recipe looks at to label one image, and whether the competition's rules allow that.

Every op, view, space, match, prompt weighting and refinement step declares it in its registry; members trained on
labelled data declare it in their entry.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ..core.errors import Forbidden
from ..core.registry import Registry, Use
from ..images.ops import OPS
from ..images.views import VIEWS
from ..maths.refine import STEPS
from ..maths.zeroshot import SPACES
from ..recipes import Ensemble, Project, line_of
from ..recipes.member import Member
from .ensemble import members
from .prompt_weights import WEIGHTINGS
from .task import Task
from .temperatures import MATCHES

USES = get_args(Use)
WORDS = {"image": "one image at a time", "test_set": "the unlabelled test images", "labels": "labelled images"}


@dataclass(frozen=True)
class Usage:
    """Something in a recipe that uses something: what is named there, in which file, under which key."""

    use: Use
    name: str
    file: Path
    keys: tuple[str | int, ...]

    def where(self, root: Path) -> str:
        key = [key for key in self.keys if isinstance(key, str)][-1]
        file = self.file.relative_to(root) if root in self.file.parents else self.file
        return f"{file}: line {line_of(self.file, self.keys)}: {key}"


def usages(project: Project, recipe: Ensemble, path: Path, *within: str) -> Iterator[Usage]:
    """All of an ensemble recipe that is written in `path`, `within` some key; UserError for what is not registered."""
    yield _usage(SPACES, recipe.space, path, *within, "space")
    yield _usage(MATCHES, recipe.match, path, *within, "match")
    yield _usage(WEIGHTINGS, recipe.prompt_weights, path, *within, "prompt_weights")
    if recipe.weights == "auto":
        yield Usage("test_set", "auto", path, (*within, "weights"))
    for number, (step, _) in enumerate(recipe.refine):
        yield _usage(STEPS, step, path, *within, "refine", number)
    if recipe.witness:
        yield Usage("test_set", recipe.witness, path, (*within, "witness"))
    for member in [*members(recipe), *([recipe.witness] if recipe.witness else [])]:
        yield from _of_member(project, member)


def _of_member(project: Project, member: Member) -> Iterator[Usage]:
    name, model = member.preprocess, member.model
    recipe, path = project.preprocess(name), project.path("preprocess", name)
    for number, (op, _) in enumerate(recipe.ops):
        yield _usage(OPS, op, path, "ops", number)
    for number, (view, _) in enumerate(recipe.views):
        yield _usage(VIEWS, view, path, "views", number)
    if project.model(model).trained_on:
        yield Usage("labels", member, project.model_file(model), (model, "trained_on"))


def _usage(registry: Registry, name: str, path: Path, *keys: str | int) -> Usage:
    where = ".".join(map(str, keys))
    return Usage(registry.find(name, f"{path}: {where}").uses, name, path, keys)


def uses(project: Project, name: str) -> list[Use]:
    """What an ensemble recipe uses: 'image', and 'test_set' or 'labels' if so, in this order."""
    found = {usage.use for usage in usages(project, project.ensemble(name), project.ensemble_path(name))}
    return [use for use in USES if use in found | {"image"}]


def check(task: Task, name: str) -> None:
    """UserError, naming file and line, for a recipe that uses what the task's rules forbid."""
    check_recipe(task, task.project.ensemble(name), task.project.ensemble_path(name))


def check_recipe(task: Task, recipe: Ensemble, path: Path, *within: str) -> None:
    """The same for a recipe that is written in another file, `within` some key."""
    for usage in usages(task.project, recipe, path, *within):
        if usage.use != "image" and not getattr(task.rules, usage.use):
            raise Forbidden(
                f"{usage.where(task.project.root)}: {usage.name} uses {WORDS[usage.use]}, which "
                f"{task.where} forbids; if its rules allow it, write 'rules: {{{usage.use}: true}}' there"
            )
