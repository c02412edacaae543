"""The submissions beside the page: the table of them, the labels of each, and a new one."""

import contextlib
import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml

from ..chain import main_job
from ..chain.csv_format import CsvFormat
from ..chain.ledger import Ledger, number_of
from ..chain.task import CompetitionTask, Task
from ..core.digests import stamp_of
from ..core.errors import UserError
from ..recipes import Project
from ..report import collect
from ..report.result import Change

AS_OPENED = 0  # number of the baseline where there is no submission


@dataclass(frozen=True)
class Baseline:
    """The labels that others are compared with: of submission `number`, or those that the page was opened with."""

    number: int
    recipe: str
    public: str
    labels: np.ndarray

    def change(self, labels: np.ndarray, board: int | None) -> Change:
        return Change(self.number, self.recipe, self.public, self.labels, labels, board)

    @property
    def title(self) -> str:
        return f"{self.number:03d} {self.recipe}" if self.number else self.recipe


@dataclass
class History:
    """The submissions of a task; a labelled data set has none."""

    task: Task
    _labels: dict[Path, tuple[list, np.ndarray | None]] = field(default_factory=dict)
    _table: tuple[list, list[dict]] = field(default_factory=lambda: ([], []))

    @property
    def ledger(self) -> Ledger | None:
        return CsvFormat(self.task).ledger if isinstance(self.task, CompetitionTask) else None

    def competition(self) -> CompetitionTask:
        """The task; UserError where it is a data set."""
        if not isinstance(self.task, CompetitionTask):
            raise UserError("a data set has no submissions")
        return self.task

    def table(self) -> list[dict]:
        """All submissions, the newest first; read again when a file of the folder is another."""
        if self.ledger is None or not self.ledger.folder.is_dir():
            return []
        files = [self.ledger.folder, *(self.ledger.folder / name for name in ("log.csv", "notes.csv"))]
        stamps = [stamp_of(path.stat()) for path in files if path.exists()]
        if stamps != self._table[0]:
            self._table = stamps, self._read_table(self.ledger)
        return self._table[1]

    @staticmethod
    def _read_table(ledger: Ledger) -> list[dict]:
        lines = {int(line["number"]): line for line in ledger.log()}
        remarks = ledger.remarks()
        best = ledger.best()
        found = []
        for path in reversed(ledger.files()):
            number = number_of(path)
            line = lines.get(number, {})
            known = {key: line.get(key, "") for key in ("time", "flipped_previous", "public", "private")}
            recipe = path.stem.partition("-")[2]
            is_best = bool(best) and int(best["number"]) == number
            found.append(
                {"number": number, "recipe": recipe, **known, "note": remarks.get(number, ""), "best": is_best}
            )
        return found

    def baseline(self, number: int) -> Baseline:
        """Submission `number`; UserError where it is not there, or of other images."""
        ledger = CsvFormat(self.competition()).ledger
        path = ledger.path(number)
        line: dict[str, str] = next((line for line in ledger.log() if int(line["number"]) == number), {})
        return Baseline(number, path.stem.partition("-")[2], line.get("public", ""), self._labels_of(path))

    def newest(self, opened: np.ndarray) -> Baseline:
        """The newest submission of these images; without one, the labels the page was `opened` with."""
        for path in reversed(self.ledger.files() if self.ledger else []):
            with contextlib.suppress(UserError):
                return self.baseline(number_of(path))
        return Baseline(AS_OPENED, "as opened", "", opened)

    def _labels_of(self, path: Path) -> np.ndarray:
        stamp = stamp_of(path.stat())
        if path not in self._labels or self._labels[path][0] != stamp:
            try:
                self._labels[path] = stamp, collect.read_labels(self.competition(), path)
            except UserError:
                self._labels[path] = stamp, None
        labels = self._labels[path][1]
        if labels is None:
            raise UserError(f"{path.name} does not fit the images and classes of {self.task.where}")
        return labels

    def of_image(self, row: int) -> list[dict]:
        """The label of one image in all submissions so far."""
        found = []
        for path in self.ledger.files() if self.ledger else []:
            with contextlib.suppress(UserError):
                name = f"{number_of(path):03d} {path.stem.partition('-')[2]}"
                found.append({"submission": name, "label": int(self._labels_of(path)[row])})
        return found

    def files_of(self, number: int) -> dict[str, str]:
        """The texts of the recipe files of a submission; of an older one, which does not hold them, its ensemble's."""
        made = self.ledger.made(number) if self.ledger else {}
        files = made.get("files")
        if isinstance(files, dict) and all(isinstance(text, str) for text in files.values()):
            return files
        recipe = made.get("recipe")
        if not isinstance(recipe, dict):
            raise UserError(f"submission {number} does not say how it was made: its JSON is gone or damaged")
        kept = {key: value for key, value in recipe.items() if key != "name" and value not in (None, [], ())}
        return {f"ensembles/{recipe.get('name')}.yaml": yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}

    def submit(self, name: str, shown: np.ndarray) -> dict:
        """`make submit` of the saved files, in a project that is read anew; what it says, and its number.

        UserError where its labels are not those that were `shown`: then the page is out of date.
        """
        anew = Project(self.task.project.root)  # which reads all recipes again
        fresh = replace(self.competition(), project=anew, facts={})
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            path = main_job.submit(fresh, name)
        same = bool((self._labels_of(path) == shown).all())
        if not same:
            raise UserError(f"{path} was written, but its labels are not those shown: reload the page and compare")
        return {"number": number_of(path), "path": str(path), "said": said.getvalue()}
