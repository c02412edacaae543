"""competitions/<name>.yaml: where the images are, the classes, the CSV, the rules."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..core.errors import Mismatch, NotFound, did_you_mean
from .schema import MAX_PIXELS, Location, Names, Recipe, Text, unsafe

BYTE_ORDER_MARK = "\ufeff"
IdValue = Literal["position", "stem", "file_name", "path"]
LabelValue = Literal["label", "class_name", "probability"]
ID_VALUES, LABEL_VALUES = get_args(IdValue), get_args(LabelValue)


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

    test_set: bool = False
    """statistics of the unlabelled test images may be used"""
    labels: bool = False
    """models trained on labelled images may be used"""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, content: Any) -> Any:
        if isinstance(content, dict) and "train_on_test_images" in content:
            raise ValueError("train_on_test_images is called 'test_set' now ('labels' allows trained models)")
        return content


class Also(Recipe):
    """What the competition asks for besides a label for each image."""

    probabilities: bool = False
    """a column for each class, called as its label"""
    top: Annotated[int, Field(gt=0)] | None = None
    """the best so many labels in one column, separated by spaces"""


class Competition(Recipe):
    """competitions/<name>.yaml: where the images are, the classes, the CSV, the rules."""

    images: Location
    """folder, glob such as `data/x/**/*.jpg`, [URL](scale.md#object-stores), or
    [tars and Parquet](scale.md#images-in-tars-and-parquet); natural order (`2.jpg` before `10.jpg`); what else lies
    there is left out, and listed"""
    count: Annotated[int, Field(gt=0)] | None = None
    """how many images there must be; then gaps in their numbers are taken for meant"""
    classes: Location | Names
    """list, or a JSON file with one; the order is the label"""
    prompts: str | None = None
    """prompt set, a folder of `prompts/` (default: the competition's name)"""
    ensemble: str | None = None
    """the recipe that `make submit` uses by default"""
    columns: dict[str, Literal[IdValue, LabelValue]] = {"id": "file_name", "label": "label"}
    """CSV columns in order, and what each holds: `position` (0, 1, ... in natural order), `stem`, `file_name` or
    `path` (below the folder of the images) for the image; `label` (index) or `class_name` for the prediction, or
    `probability`: then the column is one for each class, called after `{class_name}` or `{label}` in its name"""
    top: Annotated[int, Field(gt=0)] | None = None
    """the label column holds so many labels, the best first, separated by spaces"""
    lower_is_better: bool = False
    """of the leaderboard's scores, as of log loss"""
    sample_submission: Location | None = None
    """CSV with the ids expected; its order is kept"""
    also: Also = Also()
    """written by `make submit` into `reports/<competition>/` as well: `{probabilities: true}`, `{top: 5}`"""
    solution: Location | None = None
    """CSV with the truth, in the same columns; then `make submit` prints the accuracy, and the log
    loss of probabilities or MAP@k of the best few"""
    prior: Shares | None = None
    """shares of the classes, where the competition states them: `{class: share}`, or a list in label order; `make
    advise` compares the histogram with it (with equal shares, as a hint only, where there is none)"""
    rules: Rules = Rules()
    """what the competition allows beside looking at one image at a time: `{test_set: true, labels: true}`, below"""
    public_board: Annotated[int, Field(gt=0)] | None = None
    """number of images the public leaderboard scores"""
    damaged_images: Literal["error", "fill", "fallback"] = "error"
    """see [images](images.md#damaged-ones)"""
    max_pixels: Annotated[int, Field(gt=0)] = MAX_PIXELS
    """larger images are refused before they are decoded (default: Pillow's own limit)"""
    leaderboard: Annotated[dict[Text, Text], Field(min_length=1, max_length=1)] | None = None
    """where submissions are scored, and what the competition is called there: `{kaggle: its-short-name}`; see
    [leaderboard](leaderboard.md)"""

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

    @model_validator(mode="after")
    def _probabilities_or_labels(self) -> "Competition":
        if not self.gives_probabilities:
            return self
        if self.top:
            raise ValueError("top is of labels; with 'probability' in columns there are none")
        if not any(part in self.label_column for part in ("{class_name}", "{label}")):
            raise ValueError(
                f"columns: {self.label_column!r} is a column for each class, so its name needs {{class_name}} or "
                "{label}, e.g. '{class_name}: probability' in quotes"
            )
        return self

    @property
    def gives_probabilities(self) -> bool:
        """Whether a submission has a column of probabilities for each class."""
        return self.columns[self.label_column] == "probability"

    @property
    def scores_labels(self) -> bool:
        """Whether the board's score is the share of right labels, so that flips say what it can see."""
        return not (self.gives_probabilities or self.top or self.lower_is_better)

    @property
    def id_column(self) -> str:
        return next(column for column, value in self.columns.items() if value in ID_VALUES)

    @property
    def label_column(self) -> str:
        return next(column for column, value in self.columns.items() if value in LABEL_VALUES)

    def shares(self, names: tuple[str, ...]) -> tuple[float, ...] | None:
        """The stated prior in label order; UserError when it is not one share for each of these classes."""
        given = self.prior
        if isinstance(given, dict):
            unknown, missing = [n for n in given if n not in names], [n for n in names if n not in given]
            if unknown:
                raise NotFound(f"{unknown[0]!r} is no class.{did_you_mean(str(unknown[0]), names)}")
            if missing:
                raise Mismatch(f"no share for {missing}")
            given = [given[n] for n in names]
        if given is None:
            return None
        if len(given) != len(names):
            raise Mismatch(f"{len(given)} shares for {len(names)} classes")
        return tuple(float(share) for share in given)
