"""preprocess/<name>.yaml: how an image becomes the pixels that a model sees."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from .schema import ListOfNamed, Recipe


def _not_empty(values: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    if not values:
        raise ValueError("must be a list such as [name, {name: argument}], and not empty")
    return values


class Preprocess(Recipe):
    """preprocess/<name>.yaml: the size of the result, the ordered ops that lead to it, test-time views."""

    size: Annotated[int, Field(gt=0, le=4096)]
    """pixels a side of the result"""
    ops: Annotated[ListOfNamed, AfterValidator(_not_empty)]
    """steps in order, `[name, {name: argument}]`: see [ops](images.md#ops)"""
    draft: bool = False
    """JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size as long as twice `size` remains"""
    views: Annotated[ListOfNamed, AfterValidator(_not_empty)] = ()
    """test-time views, `[name, {name: argument}]`: see [views](images.md#test-time-views)"""
    view_pooling: Literal["mean", "confident"] = "mean"
    """`mean` of normalised features, or of the probabilities of the surest views"""
    keep_views: Annotated[int, Field(gt=0)] | None = None
    """how many views are the surest, with `confident`"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.view_pooling != "mean" and not self.views:
            raise ValueError("view_pooling needs views")
        if self.keep_views and self.view_pooling != "confident":
            raise ValueError("keep_views needs 'view_pooling: confident'")
        return self

    @property
    def draft_size(self) -> int | None:
        """Pixels of the shorter side that a JPEG may be reduced to while it is decoded; None: decode all of it."""
        return 2 * self.size if self.draft else None

    def content(self) -> dict:
        """What decides the pixels, JSON-able."""
        content = {"size": self.size, "ops": [list(op) for op in self.ops]}
        content |= {"draft": True} if self.draft else {}
        return content | ({"views": [list(view) for view in self.views]} if self.views else {})
