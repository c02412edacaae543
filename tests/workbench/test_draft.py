"""Drafts: undo, redo, and what other programs write meanwhile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UserError
from pipeline.workbench.draft import Draft
from pipeline.workbench.merge import merged

LINES = "one\ntwo\nthree\nfour\nfive\n"
lines = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n"]), max_size=8).map("".join)


@given(base=lines, side=lines)
def test_one_side_alone_is_taken_whole(base, side):
    assert merged(base, side, base) == side
    assert merged(base, base, side) == side
    assert merged(base, side, side) == side


@given(base=lines, mine=lines, theirs=lines)
def test_sides_are_alike(base, mine, theirs):
    assert merged(base, mine, theirs) == merged(base, theirs, mine)


def test_changes_apart_are_both_kept():
    assert merged(LINES, LINES.replace("one", "1"), LINES.replace("five", "5")) == "1\ntwo\nthree\nfour\n5\n"
    assert merged(LINES, LINES.replace("one", "1"), LINES.replace("two", "2")) == "1\n2\nthree\nfour\nfive\n"
    assert merged(LINES, LINES.replace("five", "5"), f"{LINES}six\n") == "one\ntwo\nthree\nfour\n5\nsix\n"
    assert merged(LINES, LINES.replace("one", "1"), LINES.replace("one", "uno")) is None
    assert merged(LINES, f"{LINES}six\n", f"{LINES}sechs\n") is None


def draft(**texts) -> Draft:
    return Draft.of(texts)


def test_undo_and_redo_give_every_state_again():
    one = draft(a="0")
    for number in "12345":
        one.edit({"a": number})
    for number in "43210":
        one.undo()
        assert one.texts == {"a": number}
    one.undo()
    assert one.texts == {"a": "0"}
    assert one.changed == []
    for _ in range(5):
        one.redo()
    assert one.texts == {"a": "5"}
    one.undo()
    one.edit({"a": "x"})
    assert not one.future


def test_edits_of_one_slider_are_one_step():
    one = draft(a="0")
    for number in "123":
        one.edit({"a": number}, "slider")
    one.undo()
    assert one.texts == {"a": "0"}


def test_anothers_edit_is_merged_and_no_undo_takes_it_back():
    one = draft(a=LINES)
    one.edit({"a": LINES.replace("one", "1")})
    one.edit({"a": LINES.replace("one", "1").replace("two", "2")})
    assert one.meet({"a": LINES.replace("five", "5")}) == ["a"]
    assert one.texts["a"] == "1\n2\nthree\nfour\n5\n"
    one.undo()
    one.undo()
    assert one.texts["a"] == LINES.replace("five", "5")
    assert one.changed == []


def test_a_conflict_is_asked_about():
    for mine, text in ((True, "mine"), (False, "theirs")):
        one = draft(a="0")
        one.edit({"a": "mine"})
        assert one.meet({"a": "theirs"}) == ["a"]
        assert one.meet({"a": "theirs"}) == []
        assert one.conflicts == {"a": "theirs"}
        assert one.texts == {"a": "mine"}
        one.resolve("a", mine)
        assert one.texts == {"a": text}
        assert one.base == {"a": "theirs"}
        assert not one.conflicts
    with pytest.raises(UserError):
        one.resolve("a", True)


def test_files_come_and_go():
    one = draft(a="0", empty="")
    one.edit({"b": "new"})
    assert one.changed == ["b"]
    assert "+new" in one.diff()
    one.meet({"a": "0", "c": "theirs", "empty": ""})
    assert one.texts == {"a": "0", "b": "new", "c": "theirs", "empty": ""}
    one.meet({"a": "0"})
    assert one.texts == {"a": "0", "b": "new"}
