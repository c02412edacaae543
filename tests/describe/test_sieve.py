"""What passes the sieve is a prompt; what does not is counted by why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.describe.sieve import LONGEST, MOST_LINES, SHORTEST, is_named, sift
from pipeline.recipes import unsafe
from pipeline.recipes.prompts import as_tokenised

GOOD = "A cat sleeps on a warm red roof."


def kept(text: str, *taken: str, names=("cat",)) -> list[str]:
    return sift(text, names, set(taken))[0]


def why(text: str, names=("cat",)) -> dict[str, int]:
    return dict(sift(text, names, set())[1])


@pytest.mark.parametrize(
    "line",
    [
        GOOD,
        f"1. {GOOD}",
        f"(12) {GOOD}",
        f"- {GOOD}",
        f"* {GOOD}",
        f"  \u2022  {GOOD}  ",
        f'"{GOOD}"',
        f"3) \u201c{GOOD}\u201d",
        GOOD.replace(" ", "\u00a0 \t"),
        f"<think>The user wants a cat sentence about cats.</think>{GOOD}",
    ],
)
def test_lists_and_quotes_are_taken_off(line):
    assert kept(line) == [GOOD]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (GOOD.replace("cat", "dog"), "does not name its class"),
        (GOOD.replace("cat", "category"), "does not name its class"),
        ("A cat" + " and a cat" * 100 + ".", "too long"),
        ("A cat.", "too short"),
        ("Here are some sentences about a cat:", "no whole sentence"),
        ("A cat sleeps on a warm and", "no whole sentence"),
        ("A **cat** sleeps on a roof.", "markup"),
        ("<b>A cat</b> sleeps on a roof.", "markup"),
        ("A cat sleeps, see https://example.org.", "markup"),
        ("{cat}: [a, cat, sleeps].", "markup"),
        ("A cat \x1b[31msleeps on a roof.", "odd characters"),
        ("A cat\x00 sleeps on a roof.", "odd characters"),
        ("A cat \u202esleeps on a roof.", "odd characters"),
        ("A cat \ud800sleeps on a roof.", "odd characters"),
        ("A cat \ufeffsleeps on a roof.", "odd characters"),
        ("A cat \ue000sleeps on a roof.", "odd characters"),
    ],
)
def test_what_is_no_prompt_is_dropped_and_counted(line, reason):
    assert kept(line) == [] and why(line) == {reason: 1}


def test_each_sentence_is_there_once():
    assert kept(f"{GOOD}\n{GOOD.upper()}\n{GOOD}") == [GOOD]
    assert kept(GOOD, as_tokenised(GOOD)) == []


def test_a_thought_that_does_not_end_is_no_answer():
    assert kept(f"<think>\n{GOOD}") == []


def test_a_key_in_an_answer_is_dropped_and_a_short_one_forbids_no_words():
    assert sift(f"{GOOD}\nA cat called sk-12345678 sleeps.", ["cat"], set(), "sk-12345678")[0] == [GOOD]
    assert sift(GOOD, ["cat"], set(), "roof")[0] == [GOOD]


def test_an_endless_answer_is_cut():
    lines = "\n".join(f"A cat with the number {n} sleeps." for n in range(2 * MOST_LINES))
    found, dropped = sift(lines, ["cat"], set())
    assert len(found) == MOST_LINES and dropped == {"too many lines": MOST_LINES}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("A big bird sits there.", "Big Birds"),
        ("Big-birds sit there.", "big_bird"),
        ("Some houses.", "House"),
        ("A glass.", "Glasses"),
        ("Two buses.", "bus"),
        ("A city at night.", "Cities"),
        ("A leaf in the sun.", "leaves"),
        ("Das M\u00fcll-Auto.", "M\u00fcll"),
        ("\u9ad8\u3044\u5c71\u3067\u3059\u3002", "\u5c71"),
        ("The C++ logo.", "C++"),
    ],
)
def test_names_are_found_in_singular_and_plural(line, name):
    assert is_named(line, name)


@given(
    st.text(max_size=300) | st.lists(st.text(max_size=60).map(lambda text: f"A cat{text}."), max_size=5).map("\n".join)
)
def test_whatever_comes_what_passes_is_plain(text):
    found, dropped = sift(text, ["cat"], set())
    assert len({as_tokenised(line) for line in found}) == len(found)
    assert all(SHORTEST <= len(line) <= LONGEST and not unsafe(line) and is_named(line, "cat") for line in found)
    assert all(count > 0 for count in dropped.values())
