"""Three-way merge of a text's lines: what two sides changed of one base, where they did not change the same lines."""

from collections.abc import Sequence
from difflib import SequenceMatcher


def merged(base: str, mine: str, theirs: str) -> str | None:
    """`base` with the changes of both sides; None where they touch the same lines, or put others in the same place."""
    if mine in (base, theirs):
        return theirs
    if theirs == base:
        return mine
    lines = base.splitlines(keepends=True)
    changes = sorted({*_changes(lines, mine), *_changes(lines, theirs)})
    made, done = [], 0
    for number, (start, stop, put) in enumerate(changes):
        before = changes[number - 1] if number else (-1, -1, ())
        if start < before[1] or (start, stop) == before[:2]:
            return None
        made += [*lines[done:start], *put]
        done = stop
    return "".join([*made, *lines[done:]])


def _changes(base: Sequence[str], side: str) -> list[tuple[int, int, tuple[str, ...]]]:
    """(start, stop, lines): the base's lines start..stop are replaced by others."""
    lines = side.splitlines(keepends=True)
    codes = SequenceMatcher(None, base, lines, autojunk=False).get_opcodes()
    return [(i, j, tuple(lines[k:m])) for tag, i, j, k, m in codes if tag != "equal"]
