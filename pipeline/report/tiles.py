"""Thumbnails of a Result's images."""

from collections.abc import Sequence
from functools import partial

from .page import Grid, Tile, small_picture
from .result import Result

TILES = 24


def how(result: Result) -> str:
    """What the captions of a grid say, in words."""
    return (
        "Predicted class"
        + ("" if result.truth is None else " (true class)")
        + (" with its share of the probabilities" if result.shares is not None else "")
    )


def tile(result: Result, row: int, caption: str, detail: str = "", state: str = "") -> Tile:
    """One image with its name."""
    return Tile(small_picture(partial(result.open_image, row)), caption, detail, result.ids[row], state)


def grid(result: Result, rows: Sequence[int], details: Sequence[str] | None = None) -> Grid:
    """Thumbnails captioned 'predicted (true)', with the score below unless `details` says something else."""
    tiles = []
    for position, row in enumerate(rows):
        name, state = result.class_names[result.labels[row]], ""
        if result.truth is not None:
            state = "right" if result.right[row] else "wrong"
            name = f"{name} ({result.class_names[result.truth[row]]})"
        detail = details[position] if details else "" if result.shares is None else f"{result.confidence[row]:.1%}"
        tiles.append(tile(result, row, name, detail, state))
    return Grid(tiles)
