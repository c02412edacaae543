"""A labelled data set as a task: the same stages and caches as a competition's, and a right answer for each image."""

import functools
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

from ..chain.task import Task
from ..core.errors import UserError, did_you_mean
from ..images.decoding import Policy
from ..recipes import Dataset, Project, Rules
from . import readers as datasets
from .readers import Row, Samples


@functools.cache
def _rows(project: Project, name: str, path: str) -> tuple[Row, ...]:
    """All rows of a data set; tasks that differ in prompts or split share them."""
    return datasets.read(project.dataset(name), project.root / path, f"datasets/{name}.yaml")


@dataclass(frozen=True)
class LabelledTask(Task):
    """One split of datasets/<competition_name>.yaml; `split` and `prompts_name` default to the recipe's."""

    split_name: str | None = None
    prompts_name: str | None = None

    @classmethod
    def of(cls, task: Task, dataset: str, split: str | None = None, prompts: str | None = None) -> "LabelledTask":
        """A data set with the settings (device, dtype, DATA, ...) of another task."""
        settings = {field.name: getattr(task, field.name) for field in fields(Task)}
        return cls(**settings | {"competition_name": dataset, "split_name": split, "prompts_name": prompts})

    @cached_property
    def dataset(self) -> Dataset:
        return self.project.dataset(self.competition_name)

    @property
    def where(self) -> str:
        return f"datasets/{self.competition_name}.yaml"

    @cached_property
    def cache(self) -> Path:
        return self.project.root / "cache" / "datasets" / self.competition_name

    @property
    def split(self) -> str:
        return self.split_name or self.dataset.split

    @cached_property
    def policy(self) -> Policy:
        return Policy(self.dataset.max_pixels, fill=self.dataset.damaged_images == "fill")

    def every_split(self) -> list["LabelledTask"]:
        """The same data set, once for each split it has."""
        rows = _rows(self.project, self.competition_name, self.source)
        return [replace(self, split_name=split) for split in dict.fromkeys(row.split for row in rows)]

    @property
    def source(self) -> str:
        return self.data or self.dataset.path

    @cached_property
    def images(self) -> Samples:
        rows = _rows(self.project, self.competition_name, self.source)
        chosen = tuple(row for row in rows if row.split == self.split)
        if not chosen:
            known = {row.split for row in rows}
            raise UserError(f"{self.where}: no split {self.split!r} in the data.{did_you_mean(self.split, known)}")
        return Samples(chosen)

    @cached_property
    def classes(self) -> dict[str, str]:
        """{published class name: the name prompts use}, in label order."""
        rows = _rows(self.project, self.competition_name, self.source)
        return datasets.class_names(self.dataset, rows, self.where)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.classes.values())

    @cached_property
    def truth(self) -> list[int]:
        """The right label of each image."""
        labels = {name: label for label, name in enumerate(self.classes)}
        return [labels[row.class_name] for row in self.images.rows]

    @property
    def prompts_set(self) -> str:
        return self.prompts_name or self.dataset.prompts

    @property
    def rules(self) -> Rules:
        return Rules(test_set=True, labels=True)
