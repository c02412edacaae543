"""A labelled data set as a task: the same stages and caches as a competition's, and a right answer for each image."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..chain.task import Task
from ..core.errors import NotFound, did_you_mean
from ..images.decoding import Policy
from ..recipes import Dataset, Rules
from . import readers
from .readers import Row, Samples


@dataclass(frozen=True, eq=False)
class DatasetTask(Task):
    """One split of datasets/<name>.yaml; split and prompt set default to the recipe's."""

    asked_split: str | None = None
    asked_prompts: str | None = None

    kind = "datasets"
    labelled = True
    rules = Rules(test_set=True, labels=True)

    @property
    def identity(self) -> tuple:
        return *super().identity, self.split

    @cached_property
    def recipe(self) -> Dataset:
        return self.project.dataset(self.name)

    @cached_property
    def cache(self) -> Path:
        return self.project.root / "cache" / "datasets" / self.name

    @property
    def source(self) -> str:
        return self.data or self.recipe.path

    @property
    def split(self) -> str:
        return self.asked_split or self.recipe.split

    @property
    def looked_at(self) -> str:
        return f"split {self.split!r} of {self.where}"

    @property
    def prompts_name(self) -> str:
        return self.asked_prompts or self.recipe.prompts

    @cached_property
    def policy(self) -> Policy:
        return Policy(self.recipe.max_pixels, fill=self.recipe.damaged_images == "fill")

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows of the data set; tasks that differ in prompts or split share them."""
        path = self.project.root / self.source
        return self.once(("rows", self.name, self.source), lambda: readers.read(self.recipe, path, self.where))

    def every_split(self) -> list["DatasetTask"]:
        """The same data set, once for each split it has."""
        return [replace(self, asked_split=split) for split in dict.fromkeys(row.split for row in self.rows)]

    @cached_property
    def images(self) -> Samples:
        chosen = tuple(row for row in self.rows if row.split == self.split)
        if not chosen:
            known = {row.split for row in self.rows}
            raise NotFound(f"{self.where}: no split {self.split!r} in the data.{did_you_mean(self.split, known)}")
        return Samples(chosen)

    @cached_property
    def classes(self) -> dict[str, str]:
        """{published class name: the name prompts use}, in label order."""
        return readers.class_names(self.recipe, self.rows, self.where)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.classes.values())

    @cached_property
    def truth(self) -> list[int]:
        """The right label of each image."""
        labels = {name: label for label, name in enumerate(self.classes)}
        return [labels[row.class_name] for row in self.images.rows]
