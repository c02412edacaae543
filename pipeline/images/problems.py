"""Images of a run as they are opened, and what is wrong with them: all that decoding needs, without torch."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..core.errors import Changed, UserError
from .damaged import DamagedImage, Unreadable
from .decoding import Decoded, Policy
from .listing import UNREADABLE

FILLED, FALLBACK, SEVERAL, STOPPED = "filled", "fallback", "first", "stopped"

Errors = list[tuple[int, UserError]]  # of rows


class Problem(NamedTuple):
    """One image: its row, what was done (FILLED, FALLBACK, SEVERAL, STOPPED), and what is wrong with it."""

    row: int
    done: str
    why: str


def picture(read: Callable[[], Decoded], name: str, known: str, policy: Policy) -> Decoded:
    """What `read` gives, without a picture where the policy falls back; DamagedImage where it does not.

    `known` is the content that the image had when the run began: a file that is another one or unreadable now stops the
    run under every policy, since what is computed is kept under the digest of that content.
    """
    try:
        seen = read()
        _refuse_replaced(name, known, seen.content)
        return seen
    except DamagedImage as damage:
        _refuse_replaced(name, known, damage.content)
        if isinstance(damage, Unreadable) and known != UNREADABLE:
            raise Changed(
                f"{damage.name}: {damage.why}, though it could be read when the run began. "
                "Put it back, or run again without it"
            ) from None
        if not policy.fallback:
            raise
        return Decoded(None, damage=damage.why)


def _refuse_replaced(name: str, known: str, content: str) -> None:
    """UserError where the bytes that were decoded are not those that the run began with."""
    if content and known not in (content, UNREADABLE) and " " not in known:  # with a space: a part of a larger file
        raise Changed(
            f"{name} was replaced while the run was reading it; what was made of it is not kept. "
            "Run the same command again"
        )


def of_picture(row: int, seen: Decoded) -> list[Problem]:
    """What there is to record of one decoded image."""
    found = [Problem(row, FALLBACK if seen.image is None else FILLED, seen.damage)] if seen.damage else []
    return found + ([Problem(row, SEVERAL, "")] if seen.several else [])


def prepared(
    rows: Iterable[int],
    opened: Callable[[int], Decoded],
    apply: Callable[[Image.Image], np.ndarray],
    size: int,
    put: Callable[[int, np.ndarray], object],
) -> tuple[Errors, list[Problem]]:
    """Decode `rows`, and `put` what `apply` makes of each: black where there is no picture; what was wrong."""
    errors, found = [], []
    for row in rows:
        try:
            seen = opened(row)
            put(row, apply(Image.new("RGB", (size, size)) if seen.image is None else seen.image))
            found += of_picture(row, seen)
        except UserError as error:
            errors.append((row, error))
    return errors, found
