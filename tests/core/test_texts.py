"""Many texts in one buffer, as a tuple of strings would be."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from natsort import natsorted

from pipeline.core import texts
from pipeline.core.digests import digest_of
from pipeline.core.tables import csv_text, parse_csv
from pipeline.core.texts import Texts, natural, natural_order, twice

ANY = st.lists(st.text(st.characters(exclude_categories=()), max_size=5), max_size=12)
NAMES = st.lists(st.text("ab019-. ~", max_size=8), max_size=12)


@settings(max_examples=40)
@given(ANY, st.integers(-14, 14), st.integers(-14, 14), st.sampled_from([None, 1, 2, -1]))
def test_they_are_the_strings_that_they_were_made_of(names, start, stop, step):
    made = Texts.of(name for name in names)
    assert made == names and made == tuple(names) and list(made) == names and len(made) == len(names)
    part = made[start:stop:step]
    assert part == names[start:stop:step] and pickle.loads(pickle.dumps(part)) == names[start:stop:step]
    assert Texts.joined([part, made]) == names[start:stop:step] + names
    assert [made[row] for row in range(-len(names), len(names))] == names + names
    assert (made == [*names, "x"]) is False and made != [*names[:-1], "other"]
    assert hash(made) == hash(Texts.joined([Texts.of([]), made]))
    with pytest.raises(IndexError):
        made[len(names)]


def test_a_view_takes_no_more_along_than_it_shows():
    made = Texts.of(str(number) for number in range(100_000))
    assert made[5:7] == ["5", "6"] and made[5:7].buffer is made.buffer
    assert len(pickle.dumps(made[5:7])) < 500


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), max_size=12))
def test_the_digest_is_that_of_a_list(names):
    facts = {"b": 1, "a": "x"}
    assert digest_of({**facts, "ids": Texts.of(names)}) == digest_of({**facts, "ids": names})


@given(NAMES)
def test_many_names_are_sorted_as_natsort_sorts_them(names):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "LARGE", 0)
        assert natural(names) == natsorted(names)


@given(NAMES, st.sampled_from([0, 100]))
def test_the_order_of_many_names_is_that_of_their_sorting(names, large):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "LARGE", large)
        order = natural_order(Texts.of(names))
        assert (names if order is None else Texts.of(names).take(order)) == natsorted(names)
        assert natural_order(Texts.of(natsorted(names))) is None


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8))
def test_rows_of_one_text_are_found(names):
    again = {names[other] for first, other in twice(Texts.of(names)) if names[first] == names[other] and first < other}
    assert again == {name for name in names if names.count(name) > 1}


def test_texts_of_one_hash_are_not_taken_for_one(monkeypatch):
    monkeypatch.setattr(texts, "hash", len, raising=False)
    assert list(twice(["ab", "cd", "e", "ab"])) == [(0, 3)]


@given(st.lists(st.tuples(st.text(max_size=4), st.text('a\r\n",\x0b\u2028', max_size=4)), min_size=1, max_size=5))
def test_a_csv_is_read_as_it_was_written(rows):
    rows = [["x" + one, "y" + other] for one, other in rows]
    header, found = parse_csv(csv_text(["a", "b"], rows), "here")
    assert header == ["a", "b"] and found == rows
