"""What the page has made of the recipe files and not yet saved: their texts, undo and redo, edits of other programs.

Files are named relative to the project. An absent file has no text.
"""

import difflib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.errors import UserError
from .merge import merged

Texts = dict[str, str]
MOST = 1000  # edits that can be undone
PAUSE = 1.5  # seconds between two edits of one control that are undone together


@dataclass
class Draft:
    """`base` is what lies on disk, `texts` what the page has; `conflicts` what another program wrote against it."""

    base: Texts
    texts: Texts
    past: list[Texts] = field(default_factory=list)
    future: list[Texts] = field(default_factory=list)
    conflicts: Texts = field(default_factory=dict)
    _last: tuple[str, float] = ("", 0.0)

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> "Draft":
        """Nothing edited yet."""
        return cls(dict(texts), dict(texts))

    @property
    def changed(self) -> list[str]:
        """The files that saving would write."""
        names = dict.fromkeys([*self.texts, *self.base])
        return sorted(name for name in names if self.texts.get(name) != self.base.get(name))

    def edit(self, changes: Mapping[str, str], control: str = "") -> None:
        """Put texts in the place of others; edits of one `control` in a row are one step of undo."""
        now = time.monotonic()
        joined = bool(control and self.past) and self._last[0] == control and now - self._last[1] < PAUSE
        if not joined:
            self.past = [*self.past[-MOST:], self.texts]
        self.texts, self.future, self._last = {**self.texts, **changes}, [], (control, now)

    def take_back(self, before: tuple) -> None:
        """As it was at `mark()`: an edit that cannot be is none."""
        self.texts, self.past, self.future, self._last = before

    def mark(self) -> tuple:
        return self.texts, list(self.past), list(self.future), self._last

    def undo(self) -> bool:
        """Whether there was something to undo."""
        return self._step(self.past, self.future)

    def redo(self) -> bool:
        return self._step(self.future, self.past)

    def _step(self, source: list[Texts], target: list[Texts]) -> bool:
        if source:
            target.append(self.texts)
            self.texts = source.pop()
        self._last = ("", 0.0)
        return bool(target)

    def meet(self, disk: Mapping[str, str]) -> list[str]:
        """Take in what other programs wrote meanwhile; returns the files that they changed.

        What both changed is merged by lines; where that cannot be, it is a conflict until `resolve`, and `save` waits.
        """
        theirs = {name for name in {*disk, *self.base} if disk.get(name) != self.base.get(name)}
        news = [name for name in theirs if self.conflicts.get(name) != disk.get(name, "") or name not in self.conflicts]
        for name in sorted(theirs):
            put = _both(self.base.get(name), self.texts.get(name), disk.get(name))
            if put is None:
                self.conflicts[name] = disk.get(name, "")
            else:
                self._adopt(name, put, disk.get(name))
        for name in [name for name in self.conflicts if name not in theirs]:
            del self.conflicts[name]  # it was put back
        return sorted(news)

    def _adopt(self, name: str, text: str, disk: str | None) -> None:
        """`text` is the draft's now; steps of undo get the other program's change as well, or it would be undone."""
        base, memo = self.base.get(name), {}

        def carried(texts: Texts) -> Texts:
            old = texts.get(name)
            if old not in memo:
                memo[old] = _both(base, old, disk)
            new = memo[old] if memo[old] is not None else text
            return with_text(texts, new)

        def with_text(texts: Texts, new: str) -> Texts:
            others = {key: one for key, one in texts.items() if key != name}
            return {**others, name: new} if new or disk is not None else others

        self.past, self.future = [carried(one) for one in self.past], [carried(one) for one in self.future]
        self.texts = with_text(self.texts, text)
        _put(self.base, name, disk)
        self.conflicts.pop(name, None)

    def resolve(self, name: str, mine: bool) -> None:
        """Keep the draft's text of a conflict, or take the other program's."""
        if name not in self.conflicts:
            raise UserError(f"{name}: nothing is to be decided about it")
        theirs = self.conflicts[name] or None
        self._adopt(name, self.texts.get(name, "") if mine else theirs or "", theirs)

    def saved(self) -> None:
        """What the page has is on disk now."""
        self.base = dict(self.texts)

    def diff(self) -> str:
        """What saving would change, as a unified diff."""
        parts = []
        for name in self.changed:
            before, after = (texts.get(name, "").splitlines(keepends=True) for texts in (self.base, self.texts))
            parts += [*difflib.unified_diff(before, after, name if before else "/dev/null", name)]
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in parts)


def _both(base: str | None, mine: str | None, theirs: str | None) -> str | None:
    """The text that holds both changes, '' for a file that is gone; None where there is none."""
    if mine in (base, theirs):
        return theirs or ""
    return merged(base or "", mine or "", theirs or "")


def _put(texts: Texts, name: str, text: str | None) -> None:
    if text is None:
        texts.pop(name, None)
    else:
        texts[name] = text
