"""datasets/<name>.yaml: labelled images, in the form they have on disk."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .schema import MAX_PIXELS, Location, Named, Recipe, Text


class Dataset(Recipe):
    """datasets/<name>.yaml: labelled images, in the form they have on disk."""

    reader: Named
    path: Location
    prompts: Text
    split: Text = "test"
    dev: Text | None = None
    classes: dict[str, Text] = {}
    # no fallback: a label that was not predicted would be measured
    damaged_images: Literal["error", "fill"] = "error"
    max_pixels: Annotated[int, Field(gt=0)] = MAX_PIXELS

    @model_validator(mode="after")
    def _dev_is_not_test(self):
        if self.dev == self.split:
            raise ValueError("dev and split are the same; a development split is what is not reported")
        return self
