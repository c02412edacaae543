"""The competition's CSV: ids, label values, order of rows; a submission's text, its check, the solution."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.console import warn
from ..core.errors import Damaged, Mismatch, UserError, did_you_mean
from ..core.tables import CHUNK, csv_lines, csv_rows, csv_text, read_csv
from ..core.texts import Texts, twice
from ..maths import metrics
from ..recipes import unsafe
from .ledger import Ledger, formulas
from .predicted import Predicted
from .task import CompetitionTask

if TYPE_CHECKING:
    from torch import Tensor

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

    @cached_property
    def header(self) -> list[str]:
        """The columns of the file; those of probabilities are called after their classes."""
        return [name for column in self.task.recipe.columns for name in self._called(column)]

    def _called(self, column: str) -> list[str]:
        if self.task.recipe.columns[column] != "probability":
            return [column]
        names = enumerate(self.task.class_names)
        return [column.replace("{label}", str(label)).replace("{class_name}", name) for label, name in names]

    @cached_property
    def predicted(self) -> Predicted:
        """How predictions are read; UserError where the classes do not fit the way they are to be written."""
        recipe, (column, label), where = self.task.recipe, self.columns, self.task.where
        for key, top in (("top", recipe.top), ("also.top", recipe.also.top)):
            if top and top > len(self.labels):
                raise Mismatch(f"{where}: {key}: {top} of {len(self.labels)} classes")
        if recipe.gives_probabilities:
            columns = self._called(label)
            if len({column, *columns}) <= len(columns):
                raise Mismatch(f"{where}: columns: {label!r} gives two columns one name, among {columns[:3]}")
            return Predicted(column, classes=dict(zip(columns, self.labels, strict=True)))
        spaced = [value for value in self.labels if " " in value]
        if recipe.top and spaced:
            raise Mismatch(
                f"{where}: top: labels are separated by spaces, and {spaced[0]!r} has one; write '{label}: label' in "
                "columns, or the class names with '_'"
            )
        return Predicted(column, label, top=recipe.top)

    @property
    def ledger(self) -> Ledger:
        """The competition's submissions."""
        folder = self.task.project.root / "submissions" / self.task.name
        return Ledger(folder, self.predicted, self.task.recipe.lower_is_better)

    @cached_property
    def ids(self) -> Texts:
        """What the id column holds for each image, in natural order; UserError when they are not unique."""
        task = self.task
        kind = task.recipe.columns[task.recipe.id_column]
        values = Texts.of(ID_OF[kind](position, name) for position, name in enumerate(task.images.ids))
        if again := sorted(twice(values)):
            shown = list(dict.fromkeys(values[row] for row, _ in again))[:3]
            raise Mismatch(f"{task.where}: columns: {kind} is not unique over the images, e.g. {shown}")
        broken = [value for value in values if unsafe(value)]
        if broken:
            raise UserError(
                f"{task.where}: columns: line breaks, control characters or bytes that are no UTF-8 in "
                f"{broken[:3]}; rename the files, or identify images by position"
            )
        return values

    @property
    def labels(self) -> list[str]:
        """What stands for each class, in label order."""
        recipe, names = self.task.recipe, self.task.class_names
        by_number = recipe.columns[recipe.label_column] == "label"
        return [str(label) for label in range(len(names))] if by_number else list(names)

    @cached_property
    def order(self) -> Sequence[str]:
        """The ids in the order of the submission's rows: the sample submission's, else the images'.

        UserError when the sample submission has other columns or other ids than the images give.
        """
        recipe, where = self.task.recipe, self.task.where
        if not recipe.sample_submission:
            return self.ids
        path = self.task.project.root / recipe.sample_submission
        header, rows = read_csv(path)
        if header != self.header:
            raise Mismatch(f"{where}: columns are {','.join(self.header)}, but {path} has {','.join(header)}")
        order = self.predicted.ids(header, rows, str(path))
        if set(order) != set(self.ids):
            absent, extra = sorted(set(order) - set(self.ids))[:3], sorted(set(self.ids) - set(order))[:3]
            raise Mismatch(
                f"{path} has {len(order)} ids and the images give {len(self.ids)}. "
                f"Without image: {absent or 'none'}; without row: {extra or 'none'}"
            )
        return order

    def text(self, labels: Sequence[int], shares_NC: "Tensor | None" = None) -> str:
        """The submission, one row per image, of what is in natural order of the images.

        `shares_NC` are needed where the competition asks for more than labels.
        """
        return csv_text(self.header, self._rows(labels, shares_NC))

    @cached_property
    def images(self) -> Sequence[int]:
        """The image of each row of the submission."""
        if self.order is self.ids:
            return range(len(self.ids))
        row_of = {value: row for row, value in enumerate(self.ids)}
        return [row_of[value] for value in self.order]

    def _rows(self, labels: Sequence[int], shares_NC: "Tensor | None") -> Iterator[list[str]]:
        recipe, known = self.task.recipe, self.labels
        ids = [column == self.columns[0] for column in recipe.columns]
        for start in range(0, len(self.order), CHUNK):
            images = self.images[start : start + CHUNK]
            if recipe.gives_probabilities:
                cells = as_shares(shares_NC[list(images)])
            elif recipe.top:
                cells = best_few(shares_NC[list(images)], known, recipe.top)
            else:
                cells = [[known[labels[image]]] for image in images]
            for value, answer in zip(self.order[start : start + CHUNK], cells, strict=True):
                yield [cell for is_id in ids for cell in ([value] if is_id else answer)]

    def check(self, text: str, decided: Sequence[int] | None = None) -> None:
        """Read a submission's text as the competition would; UserError for the first thing that is not right.

        `decided` are the labels that it must give, in natural order of the images.
        """
        lines, labels = csv_rows(text, "submission"), self.labels
        header, at, start = next(lines), 0, 0
        for rows in itertools.chain([[header]], iter(lambda: list(itertools.islice(lines, CHUNK)), [])):
            plain = csv_lines(rows)
            if not text.startswith(plain, at):
                raise Damaged("submission: blank lines, line ends or quotes that a plain CSV does not have")
            at += len(plain)
            if rows[0] is header:
                if header != self.header:
                    raise Mismatch(f"submission: header is {header}, must be {self.header}")
                continue
            stop = start + len(rows)
            if self.predicted.ids(header, rows, "submission") != self.order[start:stop]:
                raise Mismatch("submission: the ids are not those of the images, in their order")
            self.predicted.check(header, rows, labels, "submission")
            values = self.predicted.labels(header, rows, "submission").values()
            if decided is not None and list(values) != [labels[decided[row]] for row in self.images[start:stop]]:
                raise Mismatch("submission: its labels are not those that were decided; please report this")
            start = stop
        if at != len(text):
            raise Damaged("submission: blank lines, line ends or quotes that a plain CSV does not have")
        if start != len(self.order):
            raise Mismatch("submission: the ids are not those of the images, in their order")

    def measured(self, labels: Sequence[int], values_NC: "Tensor | None") -> str:
        """How right a submission is by the solution: accuracy, and what is asked for beyond labels."""
        recipe, truth = self.task.recipe, self.solution
        assert truth is not None
        accuracy = metrics.accuracy(labels, truth)
        told = f"accuracy {accuracy:.4f} (standard error {metrics.accuracy_noise(accuracy, len(truth)):.4f})"
        if recipe.gives_probabilities:
            told += f", log loss {metrics.log_loss(shares(values_NC).numpy(), truth):.5f}"
        elif recipe.top:
            told += (
                f", MAP@{recipe.top} {metrics.mean_average_precision(best(values_NC, recipe.top).numpy(), truth):.4f}"
            )
        rows = len(self._solved)
        some = f", {len(truth)} of its {rows} rows" if rows > len(truth) else ""
        return f"{told} against {recipe.solution}{some}"

    @cached_property
    def _solved(self) -> Mapping[str, str]:
        """The solution's label of each id."""
        return self.predicted.read(self.task.project.root / self.task.recipe.solution)

    @cached_property
    def solution(self) -> list[int] | None:
        """The solution's labels in image order, where the competition has one that is of these images."""
        if not self.task.recipe.solution:
            return None
        path, values = self.task.project.root / self.task.recipe.solution, self._solved
        if self.task.recipe.columns[self.columns[0]] == "position" and len(values) > len(self.ids):
            warn(
                f"not compared with {path}: it has {len(values)} rows, and as ids are positions nobody knows which of "
                f"them these {len(self.ids)} images are"
            )
            return None
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


def shares(values_NC: "Tensor") -> "Tensor":
    """Rows that sum to 1, in double precision; equal shares where all values are 0."""
    values_NC = values_NC.double()
    total_N = values_NC.sum(dim=1, keepdim=True)
    return values_NC.div(total_N).where(total_N > 0, 1 / values_NC.shape[1])


def best(values_NC: "Tensor", count: int) -> "Tensor":
    """The `count` classes of the largest values of each row, the best first."""
    return values_NC.sort(dim=1, descending=True, stable=True).indices[:, :count]


def as_shares(values_NC: "Tensor | None") -> list[list[str]]:
    """A cell for each class: rows that sum to 1, with so many digits that the order of the classes is kept."""
    assert values_NC is not None
    return [[f"{share:.9g}" for share in row] for row in shares(values_NC).tolist()]


def best_few(values_NC: "Tensor | None", labels: Sequence[str], count: int) -> list[list[str]]:
    """A cell for each row: the `count` labels of the largest values, the best first."""
    assert values_NC is not None
    return [[" ".join(labels[label] for label in row)] for row in best(values_NC, count).tolist()]


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
