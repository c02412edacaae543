"""training/<name>.yaml: what is trained on which labelled images, and how the result is chosen."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..core.errors import Forbidden, UserError
from .dataset import Dataset
from .schema import Finite, Named, Recipe, Text

FINETUNE = "finetune"  # the method that trains a tower; all others train heads on its features

Share = Annotated[Finite, Field(gt=0, lt=1)]


class Unseen(Recipe):
    """Which classes are never trained on: `number` of them drawn with `seed`, or those that `file` lists.

    `validation` of the seen classes are held out as well while epochs, settings and the bias are chosen.
    """

    number: Annotated[int, Field(gt=0)] | None = None
    """how many classes are never trained on, drawn with `seed`"""
    file: Text | None = None
    """or a file that lists them, a class name per line"""
    seed: int = 0
    """of `number`"""
    validation: Annotated[int, Field(gt=0)] | None = None
    """how many of the seen classes are held out as well while epochs, settings and the bias are chosen"""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.number is None) == (self.file is None):
            raise ValueError("give either 'number' (drawn with 'seed') or 'file' (a class name per line)")
        return self


class Training(Recipe):
    """One training run on labelled images; nothing of the split that is reported has any part in it."""

    model: Text
    """model, or member `model@preprocess`"""
    dataset: Text
    """name of `datasets/`"""
    method: Named
    """`name` or `name: {argument: value}`: see [methods](training.md#methods)"""
    split: Text = "train"
    """what is trained on; never the split that is reported"""
    validation: Share | Text = 0.25
    """share of each class that only chooses, or another split, e.g. `val`"""
    metric: Literal["acc1", "macro_f1", "mean_per_class_recall"] = "macro_f1"
    """what is chosen by; of equal ones the lower loss"""
    prompts: Text | None = None
    """prompt set of the captions (default: the data set's)"""
    captions: Text | None = None
    """another model whose text tower captions the classes, for `cosine` on an image-only tower"""
    balance: Literal["none", "sampling", "weights"] = "none"
    """`sampling`: with replacement, every class equally likely; `weights`: of the loss"""
    shots: Annotated[int, Field(gt=0)] | None = None
    """only k images of each class"""
    unseen: Unseen | None = None
    """classes that are never trained on, below"""
    small: Annotated[int, Field(ge=0)] = 10
    """classes with fewer training images are told"""
    seed: Annotated[int, Field(ge=0)] = 0
    """of validation images, shots and everything random"""

    def check(self, dataset: Dataset, where: str) -> None:
        """UserError when images of the split that is reported would be learnt from."""
        for key, split in (("split", self.split), ("validation", self.validation)):
            if split == dataset.split:
                raise Forbidden(
                    f"{where}: {key}: {split!r} is the split of {self.dataset!r} that is reported; learn "
                    "from another one, or report another one ('split:' of the data set)"
                )
        if self.split == self.validation:
            raise UserError(
                f"{where}: validation: {self.split!r} is what is trained on; give another split, or a "
                "share of it such as 0.25"
            )
