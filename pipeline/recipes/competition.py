"""competitions/<name>.yaml: where the images are, the classes, the CSV, the rules."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from .schema import MAX_PIXELS, Location, Names, Recipe, unsafe

BYTE_ORDER_MARK = "\ufeff"
ID_VALUES = ("position", "stem", "file_name")
LABEL_VALUES = ("label", "class_name")


def _shares(value: Any) -> Any:
    """{class: share} or a list of shares, in label order: numbers that are not negative and sum to 1."""
    shares = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(shares, list) or not all(isinstance(s, (int, float)) and 0 <= s <= 1 for s in shares):
        raise ValueError(f"must be 'class: share' lines or a list of shares from 0 to 1 (found {value!r})")
    if abs(sum(shares) - 1) > 0.005:
        raise ValueError(f"the shares sum to {sum(shares):g}, must be 1")
    return value if isinstance(value, dict) else tuple(value)


Shares = Annotated[Any, BeforeValidator(_shares)]  # {class: share}, or the shares in label order


class Rules(Recipe):
    """What the competition's rules allow beside looking at one image at a time."""

    test_set: bool = False  # statistics of the unlabelled test images
    labels: bool = False  # labelled images, of which members were trained

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, content: Any) -> Any:
        if isinstance(content, dict) and "train_on_test_images" in content:
            raise ValueError("train_on_test_images is called 'test_set' now ('labels' allows trained models)")
        return content


class Competition(Recipe):
    """competitions/<name>.yaml: where the images are, the classes, the CSV, the rules."""

    images: Location
    classes: Location | Names
    prompts: str | None = None
    ensemble: str | None = None
    columns: dict[str, Literal[ID_VALUES + LABEL_VALUES]] = {"id": "file_name", "label": "label"}
    sample_submission: Location | None = None
    solution: Location | None = None
    prior: Shares | None = None
    rules: Rules = Rules()
    public_board: Annotated[int, Field(gt=0)] | None = None
    damaged_images: Literal["error", "fill", "fallback"] = "error"
    max_pixels: Annotated[int, Field(gt=0)] = MAX_PIXELS

    @field_validator("columns")
    @classmethod
    def _one_id_one_label(cls, columns: dict[str, str]) -> dict[str, str]:
        for values, what in ((ID_VALUES, "identify the image"), (LABEL_VALUES, "hold the prediction")):
            named = [column for column, value in columns.items() if value in values]
            if len(named) != 1:
                raise ValueError(f"exactly one column must {what} (one of {', '.join(values)}); found {named}")
        broken = [column for column in columns if unsafe(column) or column.startswith(BYTE_ORDER_MARK)]
        if broken:
            raise ValueError(f"control characters in {broken}; a CSV cannot hold them safely")
        return columns

    @property
    def id_column(self) -> str:
        return next(column for column, value in self.columns.items() if value in ID_VALUES)

    @property
    def label_column(self) -> str:
        return next(column for column, value in self.columns.items() if value in LABEL_VALUES)
