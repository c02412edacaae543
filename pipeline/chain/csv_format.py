"""The competition's CSV: ids, label values, order of rows; a submission's text, its check, the solution."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..core.console import warn
from ..core.errors import Damaged, Mismatch, UserError, did_you_mean
from ..core.tables import csv_text, parse_csv, read_csv
from ..recipes import unsafe
from .ledger import Ledger, formulas, predictions, read_predictions
from .task import CompetitionTask

ID_OF = {
    "position": lambda position, _: str(position),
    "stem": lambda _, name: Path(name).stem,
    "file_name": lambda _, name: Path(name).name,
    "path": lambda _, name: Path(name).as_posix(),
}


@dataclass(frozen=True, eq=False)
class CsvFormat:
    """How a competition wants its answers written."""

    task: CompetitionTask

    @property
    def columns(self) -> tuple[str, str]:
        """Names of the id and the label column."""
        return self.task.recipe.id_column, self.task.recipe.label_column

    @property
    def ledger(self) -> Ledger:
        """The competition's submissions."""
        return Ledger(self.task.project.root / "submissions" / self.task.name, self.columns)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """What the id column holds for each image, in natural order; UserError when they are not unique."""
        task = self.task
        kind = task.recipe.columns[task.recipe.id_column]
        values = [ID_OF[kind](position, name) for position, name in enumerate(task.images.ids)]
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise Mismatch(f"{task.where}: columns: {kind} is not unique over the images, e.g. {twice[:3]}")
        broken = [value for value in values if unsafe(value)]
        if broken:
            raise UserError(
                f"{task.where}: columns: line breaks, control characters or bytes that are no UTF-8 in "
                f"{broken[:3]}; rename the files, or identify images by position"
            )
        return tuple(values)

    @property
    def labels(self) -> list[str]:
        """What the label column holds for each class, in label order."""
        recipe, names = self.task.recipe, self.task.class_names
        by_name = recipe.columns[recipe.label_column] == "class_name"
        return list(names) if by_name else [str(label) for label in range(len(names))]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The ids in the order of the submission's rows: the sample submission's, else the images'.

        UserError when the sample submission has other columns or other ids than the images give.
        """
        recipe, where = self.task.recipe, self.task.where
        if not recipe.sample_submission:
            return self.ids
        path = self.task.project.root / recipe.sample_submission
        header, rows = read_csv(path)
        if header != list(recipe.columns):
            raise Mismatch(f"{where}: columns are {','.join(recipe.columns)}, but {path} has {','.join(header)}")
        order = tuple(predictions(header, rows, self.columns, str(path)))
        if set(order) != set(self.ids):
            absent, extra = sorted(set(order) - set(self.ids))[:3], sorted(set(self.ids) - set(order))[:3]
            raise Mismatch(
                f"{path} has {len(order)} ids and the images give {len(self.ids)}. "
                f"Without image: {absent or 'none'}; without row: {extra or 'none'}"
            )
        return order

    def text(self, labels: Sequence[int]) -> str:
        """The submission, one row per image; `labels` are in natural order of the images."""
        label_of, values = dict(zip(self.ids, labels, strict=True)), self.labels
        header = list(self.task.recipe.columns)
        is_id = [column == self.columns[0] for column in header]
        return csv_text(header, [[i if here else values[label_of[i]] for here in is_id] for i in self.order])

    def check(self, text: str) -> None:
        """Read a submission's text as the competition would; UserError for the first thing that is not right."""
        header, rows = parse_csv(text, "submission")
        if text != csv_text(header, rows):
            raise Damaged("submission: blank lines, line ends or quotes that a plain CSV does not have")
        if header != list(self.task.recipe.columns):
            raise Mismatch(f"submission: header is {header}, must be {list(self.task.recipe.columns)}")
        values = predictions(header, rows, self.columns, "submission")
        if tuple(values) != self.order:
            raise Mismatch("submission: the ids are not those of the images, in their order")
        known = set(self.labels)
        wrong = {i: value for i, value in values.items() if value not in known}
        if wrong:
            raise Mismatch(f"submission: labels that are no class: {dict(list(wrong.items())[:3])}")

    @cached_property
    def solution(self) -> list[int] | None:
        """The solution's labels in image order, where the competition has one."""
        if not self.task.recipe.solution:
            return None
        path = self.task.project.root / self.task.recipe.solution
        values = read_predictions(path, self.columns)
        labels = {value: label for label, value in enumerate(self.labels)}
        absent = [i for i in self.ids if i not in values]
        if absent:
            raise Mismatch(
                f"{path}: does not fit the images: {len(absent)} of {len(self.ids)} are not in it, first "
                f"{', '.join(map(repr, absent[:3]))}"
            )
        unknown = {i: values[i] for i in self.ids if values[i] not in labels}
        if unknown:
            known = did_you_mean(next(iter(unknown.values())), labels)
            raise Mismatch(
                f"{path}: does not fit the classes: {len(unknown)} labels are no class, first "
                f"{dict(list(unknown.items())[:3])}.{known}"
            )
        return [labels[values[i]] for i in self.ids]


def warn_of_formulas(values: Iterable[str]) -> None:
    """A loud warning of values of a CSV that a spreadsheet program would run; the file keeps them as they are.

    A leaderboard looks for exactly these ids and labels, so nothing is escaped.
    """
    found = formulas(values)
    if found:
        warn(
            f"{len(found)} values in the CSV begin as a formula does, first {', '.join(map(repr, found[:3]))}: "
            "do not open it in a spreadsheet program, which would run them"
        )
