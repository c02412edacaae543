"""Services that score submissions: what each can do, what it answers, and how it fails.

A service is one module here with a class `Service`, made of the competition's name there and of where that is written:
`leaderboard: {kaggle: slug}` is kaggle.py. To add one, write the module.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ...chain.task import CompetitionTask
from ...core.errors import Forbidden, NotFound, Unavailable, UserError, did_you_mean

State = Literal["pending", "scored", "rejected"]


def services() -> list[str]:
    """The services there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


class Refused(Forbidden):
    """The service said no: nothing was submitted."""


class Busy(Refused):
    """It asks to be left alone for `wait` seconds."""

    def __init__(self, message: str, wait: float):
        super().__init__(message)
        self.wait = wait


class NoAnswer(Unavailable):
    """No answer, or none that can be understood: what was asked for may have happened or not."""


@dataclass(frozen=True)
class Entry:
    """A submission as the service has it. Scores are numbers as text, '' where there is none (yet)."""

    id: str
    file_name: str
    description: str
    time: str  # ISO, UTC
    state: State
    public: str = ""
    private: str = ""
    message: str = ""  # why it was rejected


@dataclass(frozen=True)
class Allowance:
    """How many submissions may be sent now, and that in words; and how many the service counts so far."""

    left: int
    words: str
    used: int


class Service(Protocol):
    """One competition of a service. Every method raises Refused, Busy or NoAnswer."""

    name: str

    def allowance(self) -> Allowance:
        """What may be sent now."""

    def upload(self, file: Path, description: str) -> str:
        """Submit a file; the service's id of it, '' if it gives none at once. Called once for a submission."""

    def entries(self) -> Iterator[Entry]:
        """All submissions of this user or team, newest first."""

    def entry(self, id: str) -> Entry:
        """One of them."""


def service_of(task: CompetitionTask) -> Service:
    """The competition's service; UserError where it names none, or one that is unknown or not installed."""
    if not task.recipe.leaderboard:
        raise UserError(f"{task.where}: no service; say where submissions go, e.g. 'leaderboard: {{kaggle: slug}}'")
    name, there = next(iter(task.recipe.leaderboard.items()))
    if name not in services():
        raise NotFound(f"{task.where}: leaderboard: unknown service {name!r}.{did_you_mean(name, services())}")
    return importlib.import_module(f".{name}", __name__).Service(there, f"{task.where}: leaderboard")
