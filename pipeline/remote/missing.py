"""What an ensemble's members lack here: rows of image features and prompts, as a pack asks for them."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ..chain import brought, ensemble, features, text
from ..chain.prompt_weights import prompts_of
from ..chain.task import CompetitionTask, Task
from ..core import artefacts
from ..core.errors import UserError
from ..images.listing import UNREADABLE
from ..recipes.prompts import load_prompts
from ..recipes.reading import read_json
from ..recipes.schema import NAME, Recipe, Text
from . import facts

PACK, IMAGES = "pack.json", "images.json"  # files of a pack
IN_SET = re.compile(rf"prompts/({NAME.pattern})/({NAME.pattern}|_shared[.]yaml)")  # a file of a prompt set
Dtype = Literal["auto", "fp32", "fp16", "bf16"]


class ImagesAsked(Recipe):
    """Image features of one member: `rows` are [start, stop] of the images that it lacks."""

    member: Text
    dtype: Dtype
    facts: dict[str, Any]
    rows: list[list[int]]

    @property
    def name(self) -> str:
        return self.member

    @property
    def model(self) -> str:
        return self.member.partition("@")[0]

    @property
    def preprocess(self) -> str:
        return self.member.partition("@")[2]

    @property
    def count(self) -> int:
        """Images."""
        return sum(stop - start for start, stop in self.rows)


class TextsAsked(Recipe):
    """Features of prompts that one model lacks."""

    model: Text
    dtype: Dtype
    facts: dict[str, Any]
    prompts: list[str]

    @property
    def name(self) -> str:
        return f"{self.model} prompts"

    @property
    def count(self) -> int:
        """Prompts."""
        return len(self.prompts)


class Pack(Recipe):
    """pack.json: what is to be encoded elsewhere, and what decides whether the same is meant there."""

    format: Literal[1] = 1
    competition: Text
    data: str | None
    shard: int
    images: list[ImagesAsked]
    texts: list[TextsAsked]
    gpu_gb: dict[str, float | None]
    requirements: list[str]

    @property
    def models(self) -> list[str]:
        """Each once."""
        asked: list[ImagesAsked | TextsAsked] = [*self.images, *self.texts]
        return list(dict.fromkeys(one.model for one in asked))


@dataclass(frozen=True)
class Listed:
    """The images of a competition: ids in order, and the digest of each one's content."""

    ids: list[str]
    contents: list[str]

    @classmethod
    def of(cls, task: Task) -> Self:
        return cls(list(task.images.ids), list(task.contents()))

    def wanted(self, pack: Pack) -> list[int]:
        """The rows of the images that a pack asks for, as far as they can be read."""
        rows = {row for asked in pack.images for start, stop in asked.rows for row in range(start, stop)}
        return sorted(row for row in rows if self.contents[row] != UNREADABLE)


def images(task: CompetitionTask, name: str) -> Iterator[ImagesAsked]:
    """What the towers of an ensemble recipe lack.

    What was brought before, or is asked for in one dtype, goes on in it. Else the machine there chooses, and encodes
    all: rows of several dtypes are no features of one member.
    """
    for member in ensemble.towers(task.project.ensemble(name)):
        seen = features.stage(task, member)
        rows = [[start, stop] for start, stop in seen.missing(seen.shard_rows)]
        if not rows:
            continue
        dtype = seen.made_from["dtype"]
        if not _goes_on(task, member, seen.digest):
            dtype, rows = "auto", [[0, len(seen.ids)]]
        yield ImagesAsked(member=str(member), dtype=dtype, facts=facts.of_images(task, member), rows=rows)


def texts(task: CompetitionTask, name: str, history: bool) -> Iterator[TextsAsked]:
    """The prompts that the models of an ensemble recipe lack; with `history` all that were ever written or encoded."""
    recipe = task.project.ensemble(name)
    wanted: dict[str, list[str]] = {}
    for member in ensemble.members(recipe):
        if not member.is_head:
            wanted.setdefault(member.model, []).extend(prompts_of(task, recipe, member).prompts)
    more = list(_history(task)) if history else []
    for model, own in wanted.items():
        prompts = tuple(dict.fromkeys([*own, *more]))
        _, new = text.cached(task, model, prompts)
        if not new:
            continue
        dtype = text.made_from(task, model)["dtype"]
        if not _goes_on(task, model, text.digest(task, model)):
            dtype, new = "auto", list(prompts)
        yield TextsAsked(model=model, dtype=dtype, facts=facts.of_text(task, model), prompts=new)


def _goes_on(task: Task, subject: str, digest: str) -> bool:
    return task.dtype_name != "auto" or brought.noted(task, subject, digest)


def _history(task: Task) -> Iterator[str]:
    """All prompts in caches of any model, in prompt sets that have the task's classes, and in those of submissions."""
    root = task.project.root
    for file in sorted((root / "cache" / "text").glob("*/*.pt")):
        known = artefacts.load(file, file.stem)
        yield from known["prompts"] if known else ()
    for above in task.project.roots:
        yield from _of_sets(task, above / "prompts")
    for file in sorted((root / "submissions" / task.name).glob("*.json")):
        yield from _of_submission(task, file)


def _of_sets(task: Task, above: Path) -> Iterator[str]:
    for folder in sorted(above.glob("*/")):
        with contextlib.suppress(UserError):  # a set about other classes
            yield from load_prompts(folder, task.class_names).prompts


def _of_submission(task: Task, file: Path) -> Iterator[str]:
    """The prompts of a submission, whose JSON holds the text of its recipe files; none of an older or damaged one."""
    try:
        texts = read_json(file).get("files", {}).items()
    except (UserError, AttributeError):
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts:
            match = IN_SET.fullmatch(name)
            if match and isinstance(text, str):
                place = Path(folder) / match[1] / match[2]
                place.parent.mkdir(exist_ok=True)
                place.write_text(text, encoding="utf-8", errors="surrogatepass")
        yield from _of_sets(task, Path(folder))
