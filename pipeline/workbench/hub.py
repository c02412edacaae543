"""Several tabs and one session: what they ask is done one after the other by one thread, what changes goes to all.

Edits that pile up while one is being evaluated (a slider that is drawn) are joined: the newest of a control counts.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import UserError
from . import numbers, one, panel, recipes, views, wire
from .pictures import Pictures
from .session import Session
from .views import View

IDLE = 0.15  # seconds without a message after which what takes longer is done
LOOK = 0.5  # seconds between two looks at the files
LONGEST_ADDRESS = 60_000  # characters of the edits in an address; more are only in the server's own file


class Later(Exception):
    """Something more urgent has come."""


@dataclass(eq=False)
class Tab:
    """One WebSocket with its view; `put` sends it a frame. Asleep, it is sent nothing until its next hello."""

    put: Callable[[bytes], Any]
    view: View = View(kind="flips")
    asleep: bool = False


@dataclass(eq=False)
class Hub:
    """The session with its tabs. All methods that touch the session run in `thread`."""

    session: Session
    pictures: Pictures
    tabs: list[Tab] = field(default_factory=list)
    asked: asyncio.Queue = field(default_factory=asyncio.Queue)
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "session"))
    _sent: np.ndarray | None = None  # the labels that all tabs have
    _sets: dict | None = None  # the texts of the prompts that all tabs have
    _pinned: object = None  # the baseline that all tabs have
    _due: bool = True  # whether what takes longer is to be done

    @property
    def awake(self) -> list[Tab]:
        return [tab for tab in self.tabs if not tab.asleep]

    async def run(self) -> None:
        """Do what is asked, until it is cancelled."""
        while True:
            batch = await self._next()
            for tab, message in joined(batch):
                await self._do(self._answer, tab, message)
            if not batch and self._due and self.awake:
                await self._do(self._effects)
            elif not batch:
                await self._do(self._look)

    async def _next(self) -> list[tuple[Tab, dict]]:
        wait = IDLE if self._due else LOOK
        try:
            first = await asyncio.wait_for(self.asked.get(), wait)
        except TimeoutError:
            return []
        batch = [first]
        while not self.asked.empty():
            batch.append(self.asked.get_nowait())
        return batch

    async def _do(self, task: Callable, *arguments) -> None:
        """Run it in the session's thread and send what it gives: (tab or None for all, frame)."""
        loop = asyncio.get_running_loop()
        frames = await loop.run_in_executor(self.thread, lambda: list(task(*arguments)))
        for tab, content in frames:
            with contextlib.suppress(Exception):  # the tab was closed meanwhile
                await tab.put(content)
        if task is not self._look:
            await loop.run_in_executor(self.thread, self.session.keep)

    # in the session's thread: generators of (tab, frame)

    def _answer(self, tab: Tab, message: dict):
        try:
            yield from self._done(tab, message)
        except UserError as error:
            yield tab, wire.frame({"type": "refused", "of": message["do"], "why": str(error)}, {})
            if message["do"] in ("edit", "hello"):
                yield from self._state([tab], everything=True)
        except Exception as error:  # a bug must not end the page, nor lose the draft
            print(f"workbench  {message['do']}: {type(error).__name__}: {error}", flush=True)
            yield tab, wire.frame({"type": "refused", "of": message["do"], "why": f"internal error: {error}"}, {})

    def _done(self, tab: Tab, message: dict):
        session, word = self.session, message["do"]
        tab.asleep = word == "sleep"
        match word:
            case "sleep":
                return
            case "hello":
                usual = {"kind": "flips" if session.baseline.number else "uncertain"}  # there is nothing to flip from
                tab.view = views.read(message.get("view") or usual)
                if message.get("edits") and not session.open_address(str(message["edits"])):
                    yield tab, wire.frame({"type": "offer", "edits": message["edits"]}, {})
                yield from self._state([tab], everything=True)
                self._due = True
                return
            case "view":
                tab.view = views.read(message.get("view"))
                yield tab, self._rows(tab)
                return
            case "image":
                yield tab, wire.frame({"type": "image", **one.of_image(session, self.pictures, self._row(message))}, {})
                return
            case "diff":
                yield tab, wire.frame({"type": "diff", "text": session.draft.diff()}, {})
                return
            case "edit":
                session.edit(_list(message.get("edits")), str(message.get("control", ""))[:200])
            case "undo" | "redo":
                session.step(back=word == "undo")
            case "open":
                session.put(recipes.unpacked(str(message.get("edits")), session.files))
            case "save":
                written = session.save()
                yield (
                    tab,
                    wire.frame({"type": "said", "text": f"saved: {', '.join(written) or 'nothing had changed'}"}, {}),
                )
            case "submit":
                yield tab, wire.frame({"type": "submitted", **session.submit()}, {})
            case "resolve":
                session.resolve(str(message.get("file")), message.get("keep") == "mine")
            case "pin" | "look" | "restore":
                {"pin": session.pin, "look": session.look_at, "restore": session.restore}[word](
                    _number(message, "number")
                )
            case "mark":
                self._mark(message)
            case _:
                raise UserError(f"nothing is called {word[:40]!r}")
        yield from self._state(self.awake, everything=word in ("look", "restore", "open"))

    def _row(self, message: dict) -> int:
        row = _number(message, "row")
        if row >= len(self.session.result.labels):
            raise UserError(f"no image {row}")
        return row

    def _mark(self, message: dict) -> None:
        rows = [int(row) for row in _list(message.get("rows")) if isinstance(row, int)]
        rows = [row for row in rows if 0 <= row < len(self.session.result.labels)]
        others = [row for row in self.session.marked if row not in set(rows)]
        self.session.marked = [*others, *rows] if message.get("on") else others

    def _rows(self, tab: Tab) -> bytes:
        return wire.frame({"type": "rows", "view": tab.view.model_dump()}, {"rows": self.session.rows(tab.view)})

    def _state(self, tabs: list[Tab], everything: bool = False):
        """What is shown now: all of it, or what is another than the tabs have."""
        session, self._due = self.session, True
        result = session.result
        header = self._header(everything)
        arrays = wire.labels_of(result.labels, len(result.class_names), None if everything else self._sent)
        self._sent = result.labels
        arrays |= {
            "margins": session.margin.astype(np.float16),
            "dissent": (255 * result.dissent).round().astype(np.uint8),
        }
        if everything or session.baseline is not self._pinned:
            kind = np.uint8 if len(result.class_names) <= 256 else np.uint16
            arrays["before"] = session.baseline.labels.astype(kind)
            if not everything:
                self._pinned = session.baseline
        for tab in tabs:
            try:
                own = {**arrays, "rows": session.rows(tab.view)}
            except UserError as error:
                tab.view = View(kind="flips")
                header["notices"] = [*header["notices"], str(error)]
                own = {**arrays, "rows": session.rows(tab.view)}
            yield tab, wire.frame({**header, "view": tab.view.model_dump()}, own)
        session.notices = []
        if everything and session.points is not None:
            for tab in tabs:
                yield tab, self.map_frame()

    def _header(self, everything: bool) -> dict:
        session = self.session
        draft, result = session.draft, session.result
        prompts = {name: text for name, text in draft.texts.items() if name.startswith("prompts/")}
        shares, anew = session.seen.blend.weights, everything or prompts != self._sets
        recipe = panel.of_recipe(session.task, session.name, shares, anew)
        self._sets = prompts
        link = recipes.packed({name: draft.texts.get(name, "") for name in draft.changed})
        header = {
            "type": "state",
            "recipe": recipe,
            "numbers": numbers.of_change(result, session.change, session.seen.decision.outcomes),
            "draft": {
                "changed": draft.changed,
                "undo": len(draft.past),
                "redo": len(draft.future),
                "link": link if len(link) <= LONGEST_ADDRESS else "",
                "conflicts": sorted(draft.conflicts),
            },
            "baseline": {"number": session.baseline.number, "title": session.baseline.title},
            "submissions": session.history.table(),
            "viewing": session.viewing,
            "marked": session.marked,
            "notices": session.notices,
        }
        if everything:
            header["choices"] = panel.choices(session.task)
            header["task"] = {
                "name": session.first.name,
                "kind": session.first.kind,
                "images": len(result.labels),
                "classes": list(result.class_names),
                "truth": result.truth is not None,
            }
        return header

    def _effects(self):
        self._due = False

        def pause() -> None:
            if not self.asked.empty():
                raise Later

        try:
            found = self.session.effects(pause)
        except Later:
            self._due = True
            return
        for tab in self.awake:
            yield tab, wire.frame({"type": "effects", **found}, {})
            if tab.view.kind == "fragile":
                yield tab, self._rows(tab)

    def _look(self):
        try:
            changed = self.session.look()
        except UserError as error:
            changed, text = [], f"a file cannot be read as it is now, the page goes on with what it had: {error}"
            for tab in self.awake:
                yield tab, wire.frame({"type": "said", "text": text}, {})
        if changed:
            self.session.notices.append(f"edited elsewhere: {', '.join(changed)}")
            yield from self._state(self.awake)

    def map_frame(self) -> bytes:
        """The points of the map, where they are known."""
        points = self.session.points
        return wire.frame({"type": "map"}, {} if points is None else {"points": points.ravel()})


def joined(batch: list[tuple[Tab, dict]]) -> list[tuple[Tab, dict]]:
    """The same without edits that a later one of the same control, right after it, makes void."""
    kept: list[tuple[Tab, dict]] = []
    for tab, message in batch:
        control = message["do"] == "edit" and message.get("control")
        if control and kept and kept[-1][0] is tab and kept[-1][1].get("control") == control:
            kept.pop()
        kept.append((tab, message))
    return kept


def _list(value: Any) -> list:
    if not isinstance(value, list) or len(value) > 20_000:
        raise UserError("not understood: a list is needed")
    return value


def _number(message: dict, key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise UserError(f"not understood: {key} is a number")
    return value
