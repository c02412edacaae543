"""How a submission holds its predictions: one label of a row, the best few, or a column of probabilities per class.

Whatever it holds, a row has one label: the first, or the class of the largest probability. That is what is compared.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import Damaged, Mismatch, NotFound
from ..core.tables import CHUNK, csv_file, csv_rows, read_csv

PLAIN = re.compile(r"\d+(\.\d+)?(e[-+]\d+)?", re.ASCII)  # a number that is not negative
SUM = 1e-3  # how far the probabilities of a row may be from 1 altogether


@dataclass(frozen=True)
class Predicted:
    """Where a row has its id, and where and how its prediction."""

    id: str
    label: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)  # {column: label} where columns hold probabilities
    top: int | None = None  # labels in the label column, the best first

    def ids(self, header: list[str], rows: list[list[str]], where: str) -> tuple[str, ...]:
        """The ids, in their order; UserError where there is no such column, or where they are not unique."""
        at = _at(header, self.id, where)
        ids = tuple(row[at] for row in rows)
        if len(set(ids)) != len(ids):
            raise Damaged(f"{where}: ids in {self.id!r} are not unique")
        return ids

    def labels(self, header: list[str], rows: list[list[str]], where: str) -> dict[str, str]:
        """{id: label}; UserError names a missing column, a repeated id or what is no probability."""
        ids = self.ids(header, rows, where)
        if not self.classes:
            at = _at(header, self.label, where)
            return {i: row[at].partition(" ")[0] if self.top else row[at] for i, row in zip(ids, rows, strict=True)}
        labels, shares = list(self.classes.values()), self._shares(header, rows, where)
        return {i: labels[values.index(max(values))] for i, values in zip(ids, shares, strict=True)}

    def _shares(self, header: list[str], rows: list[list[str]], where: str) -> Iterator[list[float]]:
        """The probabilities of each row, in label order."""
        columns, at_id = [_at(header, name, where) for name in self.classes], _at(header, self.id, where)
        for row in rows:
            cells = [row[at] for at in columns]
            wrong = next((cell for cell in cells if not PLAIN.fullmatch(cell)), None)
            if wrong is not None:
                raise Damaged(f"{where}: id {row[at_id]!r}: {wrong!r} is no probability")
            yield [float(cell) for cell in cells]

    def check(self, header: list[str], rows: list[list[str]], known: Sequence[str], where: str) -> None:
        """UserError for the first row that does not hold labels of `known`, or shares that sum to 1."""
        ids = self.ids(header, rows, where)
        if self.classes:
            for i, values in zip(ids, self._shares(header, rows, where), strict=True):
                if abs(sum(values) - 1) > SUM:
                    raise Damaged(f"{where}: id {i!r}: the probabilities sum to {sum(values):g}")
            return
        at, all_known = _at(header, self.label, where), set(known)
        for i, row in zip(ids, rows, strict=True):
            said = row[at].split(" ") if self.top else [row[at]]
            if not all_known.issuperset(said):
                raise Mismatch(f"{where}: labels that are no class: {{{i!r}: {row[at]!r}}}")
            if self.top and (len(said) != self.top or len(set(said)) != self.top):
                raise Mismatch(f"{where}: id {i!r}: {row[at]!r}, must be {self.top} labels")

    def pairs(self, path: Path) -> Iterator[tuple[str, str]]:
        """(id, label) of a submission's rows as they are asked for."""
        lines = csv_rows(csv_file(path), str(path))
        header = next(lines)
        while rows := list(itertools.islice(lines, CHUNK)):
            yield from self.labels(header, rows, str(path)).items()

    def read(self, path: Path) -> dict[str, str]:
        """{id: label} of a submission or a solution."""
        return self.labels(*read_csv(path), str(path))


def _at(header: list[str], name: str, where: str) -> int:
    if name not in header:
        raise NotFound(f"{where}: no column {name!r}; it has {', '.join(header)}")
    return header.index(name)
