"""Kinds of the one exception: they stay what they are wherever an error is told again."""

import pytest

from pipeline.core.errors import KINDS, Damaged, Mismatch, NotFound, PromptsTooLong, UserError, joint_kind, prefixed
from pipeline.images.decoding import DamagedImage, Unreadable
from pipeline.leaderboard.services import Busy, NoAnswer, Refused

from ..conftest import refused


def every_class(kind: type[UserError] = UserError) -> list[type[UserError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in every_class(below))]


def test_each_kind_has_a_code_of_its_own_and_says_what_it_is_for():
    assert KINDS["invalid"] is UserError
    for code, kind in KINDS.items():
        assert vars(kind)["code"] == code and kind.__doc__
    kinds = [kind for kind in every_class() if "code" in vars(kind)]
    assert len(kinds) == len(KINDS) == len({kind.code for kind in kinds})


def test_every_error_with_more_to_say_is_of_a_kind():
    for one in (PromptsTooLong, DamagedImage, Unreadable, Refused, Busy, NoAnswer):
        assert one.code != "invalid" and issubclass(one, KINDS[one.code])


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_prefix_keeps_the_kind(kind):
    with pytest.raises(UserError) as error, prefixed("outer"), prefixed("inner"):
        raise kind("the offender")
    assert type(error.value) is kind
    assert str(error.value) == "outer: inner: the offender"


def test_a_prefix_keeps_what_the_error_carries():
    with pytest.raises(PromptsTooLong, match=r"^file: too long$") as error, prefixed("file"):
        raise PromptsTooLong("too long", ["a prompt"])
    assert error.value.prompts == ["a prompt"]
    with pytest.raises(DamagedImage) as error, prefixed("folder"):
        raise DamagedImage("7.jpg", "it is empty")
    assert (error.value.name, error.value.why) == ("7.jpg", "it is empty")
    assert str(error.value).startswith("folder: cannot read image 7.jpg: it is empty")


def test_several_errors_in_one_are_of_their_kind_if_they_share_it():
    assert joint_kind([DamagedImage("7.jpg", "empty"), Damaged("8.jpg")]) is Damaged
    assert joint_kind([NotFound("a")]) is NotFound
    assert joint_kind([NotFound("a"), Mismatch("b")]) is UserError


@pytest.mark.parametrize(("kind", "part"), [(UserError, "'7.jpg'"), (NotFound, "'8.jpg'")])
def test_a_test_of_an_error_fails_for_another_kind_and_for_another_offender(kind, part):
    with refused(NotFound, "no image", "'7.jpg'"):
        raise NotFound("no image '7.jpg'")
    with pytest.raises(AssertionError), refused(kind, part):
        raise NotFound("no image '7.jpg'")
