"""The submissions folder of a competition: numbered CSVs, how each was made, and log.csv.

submissions/<competition>/001-<recipe>.csv    what is uploaded
submissions/<competition>/001-<recipe>.json   how it was made
submissions/<competition>/log.csv             one line each, with the leaderboard's answer
submissions/<competition>/notes.csv           what was noted of them
"""

import contextlib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..core.errors import Damaged, NotFound, UserError
from ..core.files import atomic_file, lock
from ..core.tables import csv_text, read_csv
from .predicted import Predicted

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet program takes for the beginning of a formula
FIRST_COLUMNS = ("number", "time", "recipe", "digest", "flipped_previous", "flipped_best", "public", "private")
# what a service calls it, when it was sent there, when the service was done with it; logs without them are read as well
LOG_COLUMNS = (*FIRST_COLUMNS, "service_id", "uploaded", "scored")
REMARK_COLUMNS = ["number", "note"]
NUMBERED = re.compile(r"(\d{3,9})-.+\.(?:csv|json)", re.ASCII)
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}  # a path in it may be no UTF-8
WHOLE = re.compile(r"\d{1,9}", re.ASCII)


def formulas(values: Iterable[str]) -> list[str]:
    """Those that a spreadsheet program would run instead of showing; a plain number such as -1 is none."""
    return list(dict.fromkeys(value for value in values if value.startswith(FORMULA) and not _is_number(value)))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_score(text: str) -> bool:
    return not text or _is_number(text)


def _is_time(text: str) -> bool:
    try:
        return not text or bool(datetime.fromisoformat(text))
    except ValueError:
        return False


CHECKED: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("number", WHOLE.fullmatch, "number"),
    ("public", _is_score, "number"),
    ("private", _is_score, "number"),
    ("uploaded", _is_time, "time"),
    ("scored", _is_time, "time"),
)


def now() -> str:
    """The time as the log has it, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def upload_state(line: dict[str, str]) -> str:
    """'' for what was never sent to a service, else 'unanswered', 'pending', 'scored' or 'rejected'."""
    if not line["uploaded"]:
        return ""
    if line["public"] or line["private"]:
        return "scored"
    if line["scored"]:
        return "rejected"
    return "pending" if line["service_id"] else "unanswered"


def content_digest(content: bytes) -> str:
    """12 hex digits of a CSV's bytes, as the log has them."""
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def number_of(path: Path) -> int:
    """12 for 012-winner.csv."""
    return int(path.name.partition("-")[0])


def flipped(before: dict[str, str], after: dict[str, str]) -> int | None:
    """Rows with another value; None when the two are about different images."""
    if before.keys() != after.keys():
        return None
    return sum(before[i] != after[i] for i in after)


def as_text(flipped: int | None) -> str:
    """As the log has it."""
    return "" if flipped is None else str(flipped)


@dataclass(frozen=True)
class Ledger:
    """One competition's folder, and how its submissions hold their predictions."""

    folder: Path
    predicted: Predicted
    lower_is_better: bool = False

    def locked(self) -> AbstractContextManager:
        """Hold while numbering or rewriting the log: two runs never take one number or lose a line."""
        return lock(self.folder / ".lock")

    @property
    def log_path(self) -> Path:
        return self.folder / "log.csv"

    def log(self) -> list[dict[str, str]]:
        """The lines of log.csv, oldest first."""
        if not self.log_path.exists():
            return []
        header, rows = read_csv(self.log_path)
        if tuple(header) not in (LOG_COLUMNS, FIRST_COLUMNS):
            raise Damaged(f"{self.log_path}: the columns must be {','.join(LOG_COLUMNS)}")
        lines = [dict.fromkeys(LOG_COLUMNS, "") | dict(zip(header, row, strict=True)) for row in rows]
        self._check_log(lines)
        return lines

    def _check_log(self, lines: list[dict[str, str]]) -> None:
        seen = set()
        for line in lines:
            for column, is_good, what in CHECKED:
                if not is_good(line[column]):
                    raise Damaged(f"{self.log_path}: {column} {line[column]!r} is no {what}; mend or remove the line")
            number = int(line["number"])
            if number in seen:
                raise Damaged(f"{self.log_path}: submission {number} is there twice; remove one of the lines")
            seen.add(number)

    def line(self, number: int) -> dict[str, str]:
        """The log line of a number; UserError when there is none."""
        found = next((line for line in self.log() if int(line["number"]) == number), None)
        if found is None:
            raise NotFound(f"submission {number} is not in {self.log_path}")
        return found

    def change(self, line: dict[str, str]) -> None:
        """Write a line in the place of the one with its number; call under `locked()`."""
        self.write_log([line if other["number"] == line["number"] else other for other in self.log()])

    def write_log(self, lines: list[dict]) -> None:
        with atomic_file(self.log_path) as temporary:
            temporary.write_bytes(csv_text(LOG_COLUMNS, [[line[c] for c in LOG_COLUMNS] for line in lines]).encode())

    @property
    def _remarks_path(self) -> Path:
        return self.folder / "notes.csv"

    def remarks(self) -> dict[int, str]:
        """What was noted of submissions, by number."""
        if not self._remarks_path.exists():
            return {}
        header, rows = read_csv(self._remarks_path)
        if header != REMARK_COLUMNS or not all(WHOLE.fullmatch(number) for number, _ in rows):
            raise Damaged(f"{self._remarks_path}: must have lines 'number,note' below that header")
        return {int(number): text for number, text in rows}

    def write_remarks(self, remarks: dict[int, str]) -> None:
        rows = [(number, text) for number, text in sorted(remarks.items()) if text]
        with atomic_file(self._remarks_path) as temporary:
            temporary.write_bytes(csv_text(REMARK_COLUMNS, rows).encode())

    def files(self) -> list[Path]:
        """All CSVs, by number."""
        return sorted((path for path in self._numbered() if path.suffix == ".csv" and path.is_file()), key=number_of)

    def _numbered(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("*") if NUMBERED.fullmatch(path.name))

    def find(self, number: int) -> Path | None:
        """The CSV of a number, if it is still there."""
        return next((path for path in self.files() if number_of(path) == number), None)

    def path(self, number: int) -> Path:
        """The CSV of a number; UserError names the known ones."""
        path = self.find(number)
        if path:
            return path
        known = ", ".join(str(number_of(path)) for path in self.files()) or "none yet"
        raise NotFound(f"no submission {number} in {self.folder}. Known: {known}")

    def newest(self) -> int:
        """The highest number; UserError where there is no submission."""
        files = self.files()
        if not files:
            raise NotFound(f"no submissions in {self.folder} yet: make submit")
        return number_of(files[-1])

    def two(self, before: int | None, after: int | None) -> tuple[int, int]:
        """The numbers of two submissions to compare: by default the newest, and the one before the other."""
        numbers = [number_of(path) for path in self.files()]
        after = after or next((number for number in reversed(numbers) if number != before), None)
        before = before or next((number for number in reversed(numbers) if after and number < after), None)
        if not (before and after):
            raise NotFound(f"{self.folder}: {len(numbers)} submissions; two are compared, e.g. A=1 B=2")
        return before, after

    def read(self, path: Path) -> dict[str, str]:
        """{id: label} of a submission."""
        return self.predicted.read(path)

    def flipped(self, path: Path | None, values: dict[str, str]) -> int | None:
        """Rows of `values` that another submission has otherwise; None when there is none to compare with.

        That one may be of other images, have other columns, or be no submission at all: the log goes on.
        """
        try:
            return None if path is None else flipped(self.read(path), values)
        except UserError:
            return None

    def changed(self, before: Path | None, after: Path) -> int | None:
        """As `flipped`, of two files; row by row where they have the same order, which needs no memory."""
        if before is None:
            return None
        count = 0
        with contextlib.suppress(UserError):
            for one, other in itertools.zip_longest(self.predicted.pairs(before), self.predicted.pairs(after)):
                if one is None or other is None or one[0] != other[0]:
                    break
                count += one[1] != other[1]
            else:
                return count
        return self.flipped(before, self.read(after))

    def made(self, number: int) -> dict:
        """How a submission was made: its JSON, or nothing when that is gone."""
        try:
            made = json.loads(self.path(number).with_suffix(".json").read_text(**TEXT))
        except (UserError, OSError, ValueError, RecursionError):
            return {}
        return made if isinstance(made, dict) else {}

    def best(self) -> dict[str, str] | None:
        """The log line with the best public score."""
        scored, sign = [line for line in self.log() if line["public"]], -1 if self.lower_is_better else 1
        return max(scored, key=lambda line: sign * float(line["public"]), default=None)

    def same_as(self, text: str) -> Path | None:
        """The submission with this very content."""
        content = text.encode()
        alike = (path for path in self.files() if path.stat().st_size == len(content))
        return next((path for path in alike if path.read_bytes() == content), None)

    def add(self, recipe: str, text: str, made: dict) -> Path:
        """Write the next number's JSON, CSV and log line; call under `locked()`."""
        used = [number_of(path) for path in self._numbered()]
        number = max([0, *used, *(int(line["number"]) for line in self.log())]) + 1
        path = self.folder / f"{number:03d}-{recipe}.csv"
        # both are written before either gets its name; of a kill between the names a JSON alone is what remains
        with atomic_file(path) as table, atomic_file(path.with_name(f"{path.stem}.json")) as how:
            table.write_bytes(text.encode())
            how.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", **TEXT)
        self.note(path)
        return path

    def note(self, path: Path) -> dict:
        """The log line of a submission; added when it is not there (a run may have died before it)."""
        lines, number = self.log(), number_of(path)
        for line in lines:
            if int(line["number"]) == number:
                return line
        content, best = path.read_bytes(), self.best()
        best_path = self.find(int(best["number"])) if best else None
        earlier = [file for file in self.files() if number_of(file) < number]
        line = dict.fromkeys(LOG_COLUMNS, "") | {
            "number": str(number),
            "time": now(),
            "recipe": path.stem.partition("-")[2],
            "digest": content_digest(content),
            "flipped_previous": as_text(self.changed(earlier[-1] if earlier else None, path)),
            "flipped_best": as_text(self.changed(best_path, path)),
        }
        self.write_log([*lines, line])
        return line
