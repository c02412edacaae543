"""What one page shows: a draft of the recipes, what it says of the images, and what that is compared with.

All of it is used by one thread (server.py); several tabs share it, so that no edit of one is lost in another.
"""

import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from ..chain.scores import board_of
from ..chain.task import CompetitionTask, Task
from ..core.errors import UserError
from ..core.files import lock
from ..report import collect
from ..report.result import Change, Result
from . import edits, engine, numbers, panel, recipes
from .document import Document
from .draft import Draft
from .engine import Engine, Evaluated
from .history import Baseline, History
from .overlay import Overlay
from .recipes import RecipeFiles
from .search import Search
from .store import Store
from .views import Known, View, rows_of


class Session:
    """The draft of ensemble `name` of a task; `truth` are labels that may be looked at, (N,)."""

    def __init__(self, task: Task, name: str, truth: np.ndarray | None, new: dict[str, str]):
        self.first, self.name, self.truth = task, name, truth
        self.held = contextlib.ExitStack()
        self.overlay = Overlay(task.project)
        self.held.callback(self.overlay.close)
        self.folder = task.cache / "workbench"
        self.store = Store.take(self.folder, name, self.held)
        self.engine, self.history = Engine(task), History(task)
        self.marked: list[int] = []
        self.notices: list[str] = []  # to be told once
        self._parsed: dict[str, Document] = {}
        self.points: np.ndarray | None = None  # of the map (N + C, 2)
        self.task, self._prompts = task, {}  # the task under the draft, and the texts that its prompts were read from
        sets = panel.prompt_sets(task, self._opened_recipe(new))
        self.files = RecipeFiles(task.project, name, tuple(sets))
        self.draft = Draft.of(self.files.read())
        self.draft.texts.update({name: text for name, text in new.items() if name not in self.draft.base})
        self._stamps = self.files.stamps()
        self.engine.prepare(task, self._opened_recipe(new))
        self._take_up(self.store.left)
        self.opened = self.seen.labels
        self.baseline = self.history.newest(self.opened)

    def _opened_recipe(self, new: dict[str, str]):
        """The ensemble, which may be unwritten so far: a member alone."""
        return self.overlay.project(new).ensemble(self.name)

    def _take_up(self, left: dict) -> None:
        """Go on with what an earlier page left unsaved, if that can still be read."""
        fresh = copy.deepcopy(self.draft)
        try:
            if left:
                self.draft = Draft(dict(left["base"]), dict(left["texts"]))
                self.draft.meet(fresh.base)
                self.marked = [int(row) for row in left.get("marked", ())]
            self._evaluate()
            if left:
                self.notices.append(f"taken up again, unsaved: {', '.join(self.draft.changed) or 'marks'}")
        except (UserError, KeyError, TypeError, ValueError) as error:
            if not left:
                raise
            kept = self.store.path.with_suffix(".unreadable")
            self.store.path.replace(kept)
            self.draft, self.marked = fresh, []
            self._evaluate()
            self.notices.append(f"an unsaved draft cannot be read any more and is kept as {kept}: {error}")

    def _evaluate(self) -> None:
        """Decide by the draft as it is; UserError as `make submit` would say it, and then nothing has changed."""
        with self.overlay.telling():
            prompts = {name: text for name, text in self.draft.texts.items() if name.startswith("prompts/")}
            same = prompts == self._prompts
            task = self.task.under(self.overlay.project(self.draft.texts), same)
            self.seen: Evaluated = self.engine.evaluate(task, self.name)
        self.task, self.viewing, self._prompts = task, 0, prompts
        self.result = Result(
            title="",
            subtitle="",
            stem=self.name,
            ids=task.images.ids,
            open_image=collect.opener(task),
            class_names=task.class_names,
            labels=self.seen.labels,
            truth=self.truth,
            shares=self.seen.shares,
            members=self.seen.members,
            prior=None if task.prior is None else np.array(task.prior),
        )

    # edits

    def edit(self, messages: list, control: str = "") -> None:
        """Several edits as one step; UserError for what cannot be, and then none is made."""
        with self._or_as_before():
            for message in messages:
                asked = edits.read(message)
                where = self.overlay.folder, self.ensemble_file, self.task.class_names
                at = edits.Files(self.draft.texts, *where, self._parsed)
                with self.overlay.telling():
                    changes = at.after(asked)
                self.draft.edit(changes, control)
                self.overlay.project(self.draft.texts)
            self._evaluate()

    @contextlib.contextmanager
    def _or_as_before(self):
        before = self.draft.mark()
        try:
            yield
        except BaseException:
            self.draft.take_back(before)
            self.overlay.project(self.draft.texts)
            raise

    @property
    def ensemble_file(self) -> str:
        return f"ensembles/{self.name}.yaml"

    def step(self, back: bool) -> None:
        """Undo, or redo."""
        with self._or_as_before():
            (self.draft.undo if back else self.draft.redo)()
            self._evaluate()

    def put(self, texts: dict[str, str]) -> None:
        """Texts of an address or a submission in the place of the draft's, as one edit."""
        with self._or_as_before():
            self.draft.edit({name: text for name, text in texts.items() if self.files.may_be(name)})
            self._evaluate()

    def open_address(self, word: str) -> bool:
        """The edits of an address; False where the draft has others, which are to be decided about."""
        texts = recipes.unpacked(word, self.files)
        if all(self.draft.texts.get(name) == text for name, text in texts.items()):
            return True
        if self.draft.changed:
            return False
        self.put(texts)
        return True

    def restore(self, number: int) -> None:
        """The recipes of a submission as an edit of the draft."""
        found = self.history.files_of(number)
        own = {self.ensemble_file if name.startswith("ensembles/") else name: text for name, text in found.items()}
        if not any(name.startswith("prompts/") for name in own):
            self.notices.append(f"submission {number} holds no prompts: its ensemble is restored, the prompts stay")
        self.put(own)

    # files

    def look(self) -> list[str]:
        """The files that other programs changed since the last look, taken into the draft."""
        stamps = self.files.stamps()
        if stamps == self._stamps:
            return []
        self._stamps, before = stamps, copy.deepcopy(self.draft)
        changed = self.draft.meet(self.files.read())
        try:
            self._evaluate()
        except UserError:
            self.draft = before
            self.overlay.project(self.draft.texts)
            raise
        return changed

    def save(self) -> list[str]:
        """Write the draft; returns the files written. UserError while another program's edit is undecided."""
        with lock(self.folder / "save.lock"):
            self.look()
            if self.draft.conflicts:
                raise UserError(f"{', '.join(self.draft.conflicts)}: edited elsewhere as well; decide which to keep")
            changed, disk = self.draft.changed, self.files.read()
            unmet = [name for name in changed if disk.get(name) != self.draft.base.get(name)]
            if unmet:
                raise UserError(
                    f"{', '.join(unmet)}: edited elsewhere and cannot be read as it is; mend it there first"
                )
            self.files.write(changed, self.draft.texts)
            self.draft.saved()
            self._stamps = self.files.stamps()
        return changed

    def resolve(self, name: str, mine: bool) -> None:
        """Decide about a conflict."""
        with self._or_as_before():
            self.draft.resolve(name, mine)
            self._evaluate()

    def submit(self) -> dict:
        """Write the numbered CSV of what is saved; UserError where something is not."""
        if self.draft.changed:
            raise UserError("save first: a submission is made of the files")
        return self.history.submit(self.name, self.seen.labels)

    def keep(self) -> None:
        """What is unsaved, where a crash leaves it."""
        changed, content = self.draft.changed, {}
        if changed or self.marked:
            content = {"base": self.draft.base, "texts": self.draft.texts, "marked": self.marked}
        self.store.keep(content)

    # what is shown

    @cached_property
    def board(self) -> int | None:
        images = len(self.first.images.ids)
        return board_of(self.first, images) if isinstance(self.first, CompetitionTask) else images

    @property
    def change(self) -> Change:
        """From the pinned baseline."""
        return self.baseline.change(self.result.labels, self.board)

    def pin(self, number: int) -> None:
        """Compare with another submission; 0: with the labels that the page was opened with."""
        self.baseline = self.history.baseline(number) if number else Baseline(0, "as opened", "", self.opened)

    def look_at(self, number: int) -> None:
        """Show a submission as it was; 0: the draft again."""
        if not number:
            self._evaluate()
            return
        found = collect.of_submission(self.history.competition(), number)
        shares = found.shares
        if shares is None:  # what was behind it is gone: its labels alone are known
            shares = np.eye(len(found.class_names), dtype=np.float32)[found.labels]
        self.result, self.viewing = replace(found, truth=self.truth, shares=shares), number

    def rows(self, view: View) -> np.ndarray:
        """The rows of a view, in its order, (n,) uint32."""
        similar = Search(self.engine, self.seen).rows
        points = None if self.points is None else self.points[: len(self.result.labels)]
        return rows_of(view, Known(self.result, self.baseline.labels, np.array(self.marked, int), points, similar))

    def effects(self, pause: Callable[[], None]) -> dict:
        """What takes longer: prompts and members left out in turn. `pause` may raise to put it off."""
        if not self.viewing:
            found = engine.prompt_effects(self.seen, self.truth, pause)
            flips = engine.member_effects(self.seen, pause)
            members = [replace(member, flips=flips.get(member.name)) for member in self.seen.members]
            uses, fragile = found or ((), None)
            self.result = replace(self.result, members=members, prompts=uses, fragile=fragile)
        prompts = [[use.flips, use.gain, use.largest, round(use.mean, 6)] for use in self.result.prompts]
        return {**numbers.details(self.result), "prompts": prompts if not self.viewing else []}

    @property
    def shares(self) -> np.ndarray:
        """Class shares of all images (N, C), rows that sum to 1."""
        assert self.result.shares is not None  # `look_at` sees to it
        return self.result.shares

    @property
    def margin(self) -> np.ndarray:
        """The best class's lead over the second; (N,)."""
        assert self.result.margin is not None
        return self.result.margin
