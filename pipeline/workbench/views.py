"""Which images the middle of the page shows, and in which order: rows of a `View`, from what is known of all images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from ..core.errors import UserError
from ..recipes import Finite, Recipe
from ..report.result import Result

Text = Annotated[str, Field(max_length=500)]
Point = tuple[Finite, Finite]


class View(Recipe):
    """What is asked for: a kind of view with what that needs, how it is sorted, and a region of the map."""

    kind: Literal[
        "flips", "uncertain", "disagree", "all", "class", "marked", "wrong", "fragile", "text", "like", "name"
    ]
    before: int | None = None
    """of a pair of classes that flipped: the label before, and in `label` the one now"""
    label: int | None = None
    row: int | None = None
    """the image that others are to be like"""
    text: Text = ""
    sort: Literal["view", "row", "surest", "least"] = "view"
    region: Annotated[tuple[Point, ...], Field(max_length=2000)] = ()
    """corners of a region of the map: only images in it"""


READ = TypeAdapter(View)


def read(message: object) -> View:
    """A view as the page sent it; UserError for anything else."""
    try:
        return READ.validate_python(message, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"no view: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True, eq=False)
class Known:
    """What views choose from, of N images: `before` (N,) are the pinned labels, `marked` rows, `points` (N, 2)."""

    result: Result
    before: np.ndarray
    marked: np.ndarray
    points: np.ndarray | None
    similar: Callable[[View], np.ndarray]  # rows by similarity to a text or an image, most similar first


def rows_of(view: View, known: Known) -> np.ndarray:
    """The rows of a view, uint32, in its order."""
    rows = _SORTS[view.sort](_chosen(view, known), known.result)
    if view.region and known.points is not None:
        rows = rows[inside(known.points[rows], np.array(view.region))]
    return rows.astype(np.uint32)


def _chosen(view: View, known: Known) -> np.ndarray:
    result = known.result
    match view.kind:
        case "flips":
            return _flips(view, known)
        case "uncertain":
            return result.doubtful
        case "disagree":
            apart = np.flatnonzero(result.dissent > 0)
            return apart[np.argsort(-result.dissent[apart], kind="stable")]
        case "class":
            own = np.flatnonzero(result.labels == view.label)
            return own[np.argsort(result.margin[own], kind="stable")]
        case "marked":
            return known.marked
        case "wrong":
            return np.flatnonzero(~result.right) if result.right is not None else np.zeros(0, int)
        case "fragile":
            return np.flatnonzero(result.fragile) if result.fragile is not None else np.zeros(0, int)
        case "text":
            return known.similar(view.model_copy(update={"row": None}))
        case "like":
            return known.similar(view)
        case "name":
            asked = view.text.casefold()
            return np.array([row for row, name in enumerate(result.ids) if asked in name.casefold()], int)
    return np.arange(len(result.labels))


def _flips(view: View, known: Known) -> np.ndarray:
    """Those with another label than the baseline's: of one pair of classes, or of all, the commonest pair first."""
    labels, before = known.result.labels, known.before
    rows = np.flatnonzero(labels != before)
    if view.before is not None:
        rows = rows[(before[rows] == view.before) & (labels[rows] == view.label)]
    classes = len(known.result.class_names)
    pair = before[rows].astype(np.int64) * classes + labels[rows]
    commonness = np.bincount(pair, minlength=1)[pair] if len(pair) else pair
    return rows[np.lexsort((rows, pair, -commonness))]


_SORTS = {
    "view": lambda rows, result: rows,
    "row": lambda rows, result: np.sort(rows),
    "surest": lambda rows, result: rows[np.argsort(-result.margin[rows], kind="stable")],
    "least": lambda rows, result: rows[np.argsort(result.margin[rows], kind="stable")],
}


def inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which points (N, 2) lie in a polygon (K, 2), by how often a ray to the right crosses its sides; bool (N,)."""
    x, y = points[:, 0], points[:, 1]
    found = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y1 != y2:
            found ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return found
