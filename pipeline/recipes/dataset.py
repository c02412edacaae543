"""datasets/<name>.yaml: labelled images, in the form they have on disk."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .schema import MAX_PIXELS, Location, Named, Recipe, Text


class Dataset(Recipe):
    """datasets/<name>.yaml: labelled images, in the form they have on disk."""

    reader: Named
    """`name` or `{name: {argument: value}}`: see [readers](labelled.md#data-sets)"""
    path: Location
    """where it lies; DATA=... overrides"""
    prompts: Text
    """prompt set; one whose `_shared.yaml` says `classes: any` needs no file per class"""
    split: Text = "test"
    """what is reported"""
    dev: Text | None = None
    """what may be looked at to choose"""
    classes: dict[str, Text] = {}
    """`{name on disk: name in prompts}`, where cleaning (`006.Least_Auklet` -> `Least Auklet`) is not enough"""
    # no fallback: a label that was not predicted would be measured
    damaged_images: Literal["error", "fill"] = "error"
    """as of a competition; no `fallback`, which would be measured as if it were a prediction"""
    max_pixels: Annotated[int, Field(gt=0)] = MAX_PIXELS
    """as of a competition"""

    @model_validator(mode="after")
    def _dev_is_not_test(self) -> Self:
        if self.dev == self.split:
            raise ValueError("dev and split are the same; a development split is what is not reported")
        return self
