"""What a submission was made from, found again by the digests of its JSON, whatever the recipes say today."""

import contextlib
import json
from dataclasses import replace

from ..chain import threshold
from ..chain.csv_format import CsvFormat
from ..chain.stage import made as made_stage
from ..chain.task import CompetitionTask, Task
from ..core import artefacts
from ..core.artefacts import Artefact
from ..core.errors import Changed, NotFound, UserError
from ..images.listing import is_there
from ..recipes import Ensemble
from ..recipes.member import Member


def with_its_images(task: CompetitionTask, number: int) -> CompetitionTask:
    """The task with the images that submission `number` was made from; as it is where DATA says which are meant.

    UserError where they are gone or others by now: pictures would be shown under labels that are not theirs.
    """
    made = CsvFormat(task).ledger.made(number)
    source, digest = made.get("data"), made.get("images", {}).get("digest")
    if task.data or not source or not digest:
        return task
    fix = "put them back, or give the DATA= to look at all the same"
    if source != task.source:
        if not is_there(source, task.project.root):
            if is_there(task.source, task.project.root) and task.images_digest() == digest:
                return task  # they were moved, and the recipe says where to
            raise NotFound(f"submission {number} was made from the images in {source}, which is not there; {fix}")
        task.say_once("images", task.name, f"those of {source}, which submission {number} was made from")
        task = replace(task, data=source)
    if task.images_digest() != digest:
        raise Changed(f"{source}: other images than those that submission {number} was made from; {fix}")
    return task


def recipe_of(task: Task, made: dict, where: str) -> Ensemble:
    """The recipe that a submission was made by, whatever the file says today."""
    recipe = Ensemble.parse({key: value for key, value in made["recipe"].items() if key != "name"}, where)
    members = {member_of(task, name): use for name, use in recipe.members.items()}
    witness = recipe.witness and member_of(task, recipe.witness)
    return recipe.model_copy(update={"members": members, "witness": witness})


def member_of(task: Task, name: str) -> Member:
    """A member, though its model or preprocess recipe may be gone."""
    with contextlib.suppress(UserError):
        return task.project.member(name)
    model, _, preprocess = name.partition("@")
    return Member(model, preprocess)


def last_stage(task: Task, name: str, made: dict) -> Artefact | None:
    """The thresholded blend that a submission was made from."""
    with contextlib.suppress(UserError):  # a recipe that is gone or broken by now
        last = threshold.stage(task, name)
        if last.digest == made["digest"]:
            return made_stage(last)
    return cached(task, "threshold", name, made["digest"]) or cached(task, "ensemble", name, made["digest"])


def probs_of_members(task: Task, made: dict) -> dict[Member, Artefact]:
    """The members' probabilities that are still in the cache, by name, in the recipe's order."""
    found = {
        member_of(task, name): cached(task, "probs", name, member["digest"]) for name, member in made["members"].items()
    }
    return {member: part for member, part in found.items() if part}


def cached(task: Task, stage: str, name: str, digest: str) -> Artefact | None:
    """The complete artefact of a digest, if the cache has it."""
    folder = task.cache / stage / name
    for file in sorted((folder / digest).glob("*.pt"))[:1]:
        shard = artefacts.load(file, digest)
        artefact = shard and Artefact(folder, json.loads(shard["made_from"]), task.images.ids)
        if artefact and not artefact.missing(task.shard_rows):
            return artefact
    return None
