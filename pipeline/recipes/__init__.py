"""YAML -> frozen, strict objects. Unknown keys, unknown names and wrong values are errors that name the fix.

`Project` finds the recipes below one folder: competitions/, datasets/, benchmarks/, models.yaml, preprocess/,
ensembles/. Everything here works without torch, so that a mistake in a recipe is told before anything slow starts.
"""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from ..core.errors import UserError, did_you_mean

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_BYTES = 4_000_000  # of one YAML or JSON file; recipes are written by hand
LONGEST_NAME, LONGEST_PATH = 255, 1000  # of a file or folder in bytes, of a path in characters
MAX_DEPTH = 20  # lists and mappings inside each other; libyaml's own stack has no limit
MAX_DIGITS = 100  # of a number: beyond a float's range Python's conversions fail in ways of their own
NUMBER = re.compile(r"[-+.0-9][-+._:0-9a-fA-FxX]*")
BYTE_ORDER_MARK = "\ufeff"
MAX_PIXELS = 178_956_970  # of one image: where Pillow refuses to go on, about 0.7 GB in memory
ID_VALUES = ("position", "stem", "file_name")
LABEL_VALUES = ("label", "class_name")

HEAD = "head"  # the family of what is trained on another member's image features; its columns are classes
# Unicode categories that no name in a CSV may have: control characters, line and paragraph separators, and halves of
# surrogate pairs, which stand for bytes that are no UTF-8
UNSAFE = {"Cc", "Zl", "Zp", "Cs"}

Pooling = Literal["mean", "median", "max", "embedding"]
PromptWeights = Literal["given", "uniform", "zpe", "carprt"]
Match = Literal["none", "temperature", "confidence"]
BenchmarkPooling = Literal["embedding", "mean", "median", "max", "logit_mean", "logit_median", "logit_max"]
RESERVED = ("text", "datasets", "benchmarks")  # folders in cache/ that belong to no competition
ResizeMode = Literal["squash", "shortest", "longest"]
# the self-checks of a checkpoint that an entry may silence by name (pipeline/models/_checks.py)
Check = Literal[
    "activation",
    "mean",
    "position_embedding",
    "prompts_cut",
    "resize_mode",
    "size",
    "std",
    "unexpected_keys",
    "vocabulary",
]


class _Loader(yaml.CSafeLoader):
    """Safe YAML without duplicate keys (plain YAML keeps the last one silently)."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not used in recipes", key_node.start_mark
                )
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float)):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text; put it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, as plain dicts, lists and scalars; UserError names file and line."""
    try:
        text = _text(path)
        _refuse_what_recipes_do_not_use(text, path)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise UserError(f"{path}:{line} {what}") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: {error}") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError names it."""
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: not JSON: {error}") from None


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"no file {path}")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes; a recipe is a short file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _refuse_what_recipes_do_not_use(text: str, path: Path) -> None:
    """UserError for aliases, tags, NUL characters, endless nesting and endless numbers.

    Event by event, so before anything is built: each of these has made a YAML reader slow, crash or run code.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        match event:
            case yaml.AliasEvent():
                wrong = f"YAML aliases (*{event.anchor}) are not used in recipes; write the value out"
            case yaml.CollectionStartEvent() if depth == MAX_DEPTH:
                wrong = f"more than {MAX_DEPTH} lists or mappings inside each other"
            case yaml.ScalarEvent() | yaml.CollectionStartEvent() if event.tag is not None:
                wrong = f"YAML tags ({event.tag}) are not used in recipes; put text in quotes"
            case yaml.ScalarEvent() if "\0" in event.value:
                wrong = "a NUL character"
            case yaml.ScalarEvent() if event.implicit[0] and _too_long_a_number(event.value):
                wrong = f"a number of {len(event.value)} characters"
            case _:
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                continue
        raise UserError(f"{path}: line {event.start_mark.line + 1}: {wrong}")


def _too_long_a_number(value: str) -> bool:
    return len(value) > MAX_DIGITS and bool(NUMBER.fullmatch(value))


def line_of(path: Path, keys: tuple[str | int, ...]) -> int:
    """The line, from 1, on which a key of a YAML file stands, or the deepest of its parents that is written there."""
    node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.CSafeLoader)
    line = 0
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            name = node = node.value[key]
        elif isinstance(node, yaml.MappingNode):
            name, node = next(((k, v) for k, v in node.value if k.value == key), (None, None))
        else:
            name = None
        if name is None:
            break
        line = name.start_mark.line
    return line + 1


class Recipe(BaseModel):
    """Base of all recipes: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, content: Any, where: str):
        """`content` as this recipe, or a UserError that starts with `where`."""
        if content is None:
            content = {}
        if not isinstance(content, dict):
            raise UserError(f"{where}: expected 'key: value' lines, found {type(content).__name__}")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError("\n".join(f"{where}: {_explain(cls, e)}" for e in error.errors())) from None

    @classmethod
    def read(cls, path: Path):
        return cls.parse(read_yaml(path), str(path))


def _explain(recipe: type[BaseModel], error: dict) -> str:
    key, found = ".".join(str(part) for part in error["loc"]), _short(error["input"])
    match error["type"]:
        case "extra_forbidden" if len(error["loc"]) > 1:
            return f"unknown key '{key}'"
        case "extra_forbidden":
            return f"unknown key '{key}'.{did_you_mean(key, recipe.model_fields)}"
        case "missing":
            return f"missing key '{key}'"
        case "value_error":
            return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
        case "tuple_type":
            return f"{key}: must be a list, e.g. [a, b] (found {found})"
        case "dict_type":
            return f"{key}: must be 'name: value' lines (found {found})"
        case "string_type" | "invalid_key":
            return f"{key.removesuffix('.[key]')}: {found} is not text; put it in quotes"
    return f"{key}: {error['msg']} (found {found})"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


def _location(path: str) -> str:
    if max(len(part.encode()) for part in path.split("/")) > LONGEST_NAME or len(path) > LONGEST_PATH:
        raise ValueError("no path: longer than file systems allow")
    return path


Location = Annotated[Text, AfterValidator(_location)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
Triple = Annotated[tuple[Finite, Finite, Finite], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
Scalar = bool | int | Finite | str
Temperature = Annotated[Finite, Field(gt=0)]


def _unique(values: tuple[str, ...], what: str) -> tuple[str, ...]:
    twice = sorted(value for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"duplicate {what}: {twice}")
    return values


def _shares(value: Any) -> Any:
    """{class: share} or a list of shares, in label order: numbers that are not negative and sum to 1."""
    shares = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(shares, list) or not all(isinstance(s, (int, float)) and 0 <= s <= 1 for s in shares):
        raise ValueError(f"must be 'class: share' lines or a list of shares from 0 to 1 (found {value!r})")
    if abs(sum(shares) - 1) > 0.005:
        raise ValueError(f"the shares sum to {sum(shares):g}, must be 1")
    return value if isinstance(value, dict) else tuple(value)


Shares = Annotated[Any, BeforeValidator(_shares)]  # {class: share}, or the shares in label order


def unsafe(text: str) -> bool:
    """Whether a CSV cannot hold the text safely: line breaks, control characters, halves of surrogate pairs."""
    return any(unicodedata.category(char) in UNSAFE for char in text)


def checked_class_names(names: Any, where: str) -> tuple[str, ...]:
    """At least two different names that a CSV can hold; UserError, starting with `where`, for anything else."""
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"{where}: must be a list of class names")
    if len(names) < 2:
        raise UserError(f"{where}: needs at least two classes")
    broken = [name for name in names if unsafe(name)]
    if broken:
        raise UserError(f"{where}: line breaks or control characters in {broken}; a CSV cannot hold them safely")
    try:
        return _unique(tuple(names), "class names")
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


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


class ModelEntry(Recipe):
    """One entry of models.yaml: where a checkpoint is, what is known of it, and how it likes its images.

    `size` to `logit_scale` are declared facts, compared with what the checkpoint itself says when it is loaded.
    """

    family: Text
    # where it is
    base: Text | None = None  # of family head: the member whose image features it takes
    architecture: str | None = None
    tag: str | None = None
    hub: str | None = None
    file: str | None = None
    revision: str | None = None
    weights: str | None = None
    tokenizer: str | None = None
    download_gb: Annotated[Finite, Field(gt=0)] | None = None
    # what is known of it
    size: Annotated[int, Field(gt=0, le=4096)] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    resize_mode: ResizeMode | None = None
    context_length: Annotated[int, Field(gt=2)] | None = None
    quick_gelu: bool | None = None
    logit_scale: Annotated[Finite, Field(gt=0)] | None = None
    temperature: Temperature | None = None  # for ensembles with 'match: temperature'
    trained_on: Names = ()  # labelled data that it was trained on here, e.g. intel-dev:train
    parameters: Annotated[Finite, Field(gt=0)] | None = None  # millions
    imagenet: Annotated[Finite, Field(ge=0, le=100)] | None = None  # zero-shot ImageNet-1k top-1, percent
    licence: str = ""
    note: str = ""
    # how it is used
    preprocess: Text
    options: dict[str, Scalar] = {}
    fp32_layers: Names = ()
    allow: Annotated[tuple[Check, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = ()

    @model_validator(mode="after")
    def _has_a_source(self):
        if not (self.weights or self.tag or self.hub):
            raise ValueError("no checkpoint: give 'weights' (a local file or folder), 'tag' or 'hub'")
        return self

    @model_validator(mode="after")
    def _head_has_a_base(self):
        if (self.family == HEAD) != (self.base is not None):
            raise ValueError(
                f"base: the member whose features a trained head takes; family {HEAD} needs it, and others have none"
            )
        return self

    @model_validator(mode="after")
    def _size_is_free_for_convolutions_only(self):
        if "size" in self.allow and self.family != "timm":
            raise ValueError(
                "allow: 'size' is for backbones of family timm, whose convolutions take any size; with "
                "position embeddings it is 'position_embedding'"
            )
        return self


def _named(value: Any) -> tuple[str, Any]:
    """`name` -> (name, None); `{name: argument}` -> (name, argument)."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.items()))
    raise ValueError(f"{value!r} is neither 'name' nor 'name: argument'")


def _list_of_named(values: Any) -> tuple[tuple[str, Any], ...]:
    if not isinstance(values, list) or not values:
        raise ValueError("must be a list such as [name, {name: argument}]")
    return tuple(_named(value) for value in values)


def _listed(values: tuple[tuple[str, Any], ...]) -> list:
    return [name if argument is None else {name: argument} for name, argument in values]


Named = Annotated[tuple[str, Any], BeforeValidator(_named)]  # a registered function and its argument
ListOfNamed = Annotated[tuple[tuple[str, Any], ...], BeforeValidator(_list_of_named), PlainSerializer(_listed)]


class Preprocess(Recipe):
    """preprocess/<name>.yaml: the size of the result, the ordered ops that lead to it, test-time views."""

    size: Annotated[int, Field(gt=0, le=4096)]
    ops: ListOfNamed
    draft: bool = False
    views: ListOfNamed = ()
    view_pooling: Literal["mean", "confident"] = "mean"
    keep_views: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _consistent(self):
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


class Member(Recipe):
    """A member of an ensemble: its weight, and what it has of its own. A number alone is the weight."""

    weight: Finite
    prompts: Text | None = None  # None: the prompt set of the competition or data set
    temperature: Temperature | None = None  # None: that of its models.yaml entry

    @model_serializer(mode="wrap")
    def _as_written(self, dump) -> Any:
        content = {key: value for key, value in dump(self).items() if value is not None}
        return content if len(content) > 1 else self.weight


def _as_mapping(value: Any) -> Any:
    return value if isinstance(value, (dict, Member)) else {"weight": value}


class Ensemble(Recipe):
    """ensembles/<name>.yaml: weighted members, how they are blended, threshold, pooling, refinement."""

    members: dict[str, Annotated[Member, BeforeValidator(_as_mapping)]]
    blend: Literal["prompts", "classes"] = "prompts"
    space: Literal["probability", "log"] = "probability"
    match: Match = "none"
    threshold: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    pooling: Pooling = "mean"
    prompt_weights: PromptWeights = "given"
    refine: Annotated[
        tuple[tuple[str, Any], ...],
        BeforeValidator(lambda values: () if values == [] else _list_of_named(values)),
        PlainSerializer(_listed),
    ] = ()
    guards: bool = True

    @field_validator("members")
    @classmethod
    def _weights(cls, members: dict[str, Member]) -> dict[str, Member]:
        if not members:
            raise ValueError("an ensemble needs at least one member, 'model@preprocess: weight'")
        negative = [name for name, member in members.items() if member.weight < 0]
        if negative:
            raise ValueError(f"negative weights: {negative}")
        if not any(member.weight for member in members.values()):
            raise ValueError("all weights are zero")
        if not math.isfinite(sum(member.weight for member in members.values())):
            raise ValueError("the sum of the weights is not finite; only ratios matter, so give smaller ones")
        return members

    @model_validator(mode="after")
    def _consistent(self):
        sets = {member.prompts for member in self.members.values() if member.weight}
        if self.blend == "prompts" and len(sets) > 1:
            raise ValueError(
                "members: they have different prompt sets, whose columns cannot be blended; "
                "'blend: classes' pools each member to classes first"
            )
        if self.blend == "classes" and self.threshold:
            raise ValueError("threshold: is for prompt probabilities and needs 'blend: prompts'")
        if self.prompt_weights in ("zpe", "carprt") and self.pooling not in ("mean", "embedding"):
            raise ValueError(f"prompt_weights: {self.prompt_weights} needs pooling 'mean' or 'embedding'")
        unused = [name for name, member in self.members.items() if member.temperature]
        if unused and self.match != "temperature":
            raise ValueError(f"members.{unused[0]}.temperature: needs 'match: temperature'")
        return self


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


class Benchmark(Recipe):
    """benchmarks/<name>.yaml: which models are measured on which data sets, with which prompts and poolings."""

    datasets: Names = ()
    models: Names = ()
    prompts: Names = ("own",)  # own: the data set's
    poolings: Annotated[
        tuple[BenchmarkPooling, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
    ] = ("embedding",)
    split: Text | None = None
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    note: str = ""

    @field_validator("datasets", "models", "prompts", "poolings")
    @classmethod
    def _once(cls, names: tuple[str, ...], info) -> tuple[str, ...]:
        return _unique(names, info.field_name)

    @model_validator(mode="after")
    def _not_empty(self):
        for key in ("datasets", "models", "prompts", "poolings"):
            if not getattr(self, key):
                raise ValueError(f"no {key} given")
        return self


def _tuple_of_tuples(value: Any) -> Any:
    return tuple(tuple(row) if isinstance(row, list) else row for row in value) if isinstance(value, list) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Subsets(Recipe):
    """Random subsets of a prompt set's templates: how many, and what share of the templates each keeps."""

    number: Annotated[int, Field(ge=1, le=200)]
    share: Annotated[Finite, Field(gt=0, lt=1)] = 0.5


class Vary(Recipe):
    """What a sweep varies of its base recipe; a key that is not here stays as it is there.

    Member weights are in the order of the base's members, or all multiples of 1/weight_steps that sum to 1.
    """

    weights: Annotated[tuple[tuple[Finite, ...], ...], BeforeValidator(_tuple_of_tuples)] = ()
    weight_steps: Annotated[int, Field(ge=1, le=100)] | None = None
    prompts: Names = ()
    templates: Subsets | None = None
    blend: Names = ()
    match: Names = ()
    space: Names = ()
    threshold: Annotated[tuple[Finite, ...], BeforeValidator(_tuple)] = ()
    pooling: Names = ()
    prompt_weights: Names = ()
    refine: Annotated[tuple[list, ...], BeforeValidator(_tuple)] = ()

    @model_validator(mode="after")
    def _something_once(self):
        if not self.model_fields_set:
            raise ValueError("nothing is varied")
        if self.weights and self.weight_steps:
            raise ValueError("weights and weight_steps: give one of them")
        return self


class Sweep(Recipe):
    """sweeps/<name>.yaml: what is varied of an ensemble recipe, and on which images it is compared."""

    dataset: Text | None = None
    competition: Text | None = None
    split: Text | None = None
    base: Text
    out: Text | None = None
    random: Annotated[int, Field(ge=1, le=100_000)] | None = None  # candidates drawn; None: all
    seed: int = 0
    vary: Vary
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000

    @model_validator(mode="after")
    def _one_source(self):
        if (self.dataset is None) == (self.competition is None):
            raise ValueError("give 'dataset:' (compared by accuracy on its dev split) or 'competition:' (by stability)")
        if self.split and not self.dataset:
            raise ValueError("split: goes with 'dataset:'")
        if self.out and not NAME.fullmatch(self.out):
            raise ValueError(f"out: {self.out!r} is no recipe name: letters, digits, '.', '_' and '-' only")
        return self


def checked_name(name: str, kind: str, hint: str = "") -> str:
    """A name that is a file's or folder's and cannot lead out of the project."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no {kind} name: letters, digits, '.', '_' and '-' only, at most 100.{hint}")
    return name


class Project:
    """The recipes below `root`, each read once, so that an edit during a run cannot mix two states.

    Every getter raises UserError for an unknown name, naming the known ones.
    """

    def __init__(self, root: Path | str = "."):
        self.root = Path(root)
        self.made_prompts: dict[str, Path] = {}  # prompt sets that a run wrote elsewhere: {name: folder}
        if not (self.root / "competitions").is_dir():
            raise UserError(f"no competitions/ folder in {self.root.absolute()}; run from the project's folder")

    def names(self, kind: str) -> list[str]:
        """The names of all recipes of a kind ('competitions', 'preprocess', 'ensembles')."""
        return sorted(path.stem for path in (self.root / kind).glob("*.yaml"))

    def path(self, kind: str, name: str) -> Path:
        hint = did_you_mean(Path(name).name.removesuffix(".yaml"), self.names(kind))
        path = self.root / kind / f"{checked_name(name, 'recipe', hint)}.yaml"
        if not path.is_file():
            raise UserError(f"no {path.relative_to(self.root)}.{hint}")
        return path

    def prompts_folder(self, name: str) -> Path:
        """Where the prompt set of a name lies."""
        return self.made_prompts.get(name) or self.root / "prompts" / checked_name(name, "prompt set")

    @cache
    def dataset(self, name: str) -> Dataset:
        return Dataset.read(self.path("datasets", name))

    @cache
    def benchmark(self, name: str) -> Benchmark:
        return Benchmark.read(self.path("benchmarks", name))

    @cache
    def sweep(self, name: str) -> Sweep:
        return Sweep.read(self.path("sweeps", name))

    @cache
    def competition(self, name: str) -> Competition:
        if name in RESERVED:
            raise UserError(f"no competition can be called {name!r}: cache/{name} has another meaning")
        return Competition.read(self.path("competitions", name))

    @cache
    def class_names(self, name: str) -> tuple[str, ...]:
        """The classes of a competition in label order; from its list or the JSON file it names."""
        classes = self.competition(name).classes
        if not isinstance(classes, str):
            return checked_class_names(classes, f"competitions/{name}.yaml: classes")
        try:
            return checked_class_names(read_json(self.root / classes), classes)
        except UserError as error:
            raise UserError(f"competitions/{name}.yaml: classes: {error}") from None

    @cache
    def prior(self, name: str) -> tuple[float, ...] | None:
        """The class shares that a competition states, in label order; None when it states none."""
        given, names = self.competition(name).prior, self.class_names(name)
        if given is None:
            return None
        where = f"competitions/{name}.yaml: prior"
        if isinstance(given, dict):
            unknown, missing = [n for n in given if n not in names], [n for n in names if n not in given]
            if unknown:
                raise UserError(f"{where}: {unknown[0]!r} is no class.{did_you_mean(str(unknown[0]), names)}")
            if missing:
                raise UserError(f"{where}: no share for {missing}")
            given = [given[n] for n in names]
        if len(given) != len(names):
            raise UserError(f"{where}: {len(given)} shares for {len(names)} classes")
        return tuple(float(share) for share in given)

    @cached_property
    def models(self) -> dict[str, ModelEntry]:
        """All entries of models.yaml, of models.local.yaml and trained/*/model.yaml (yours, not in git), by name."""
        return {name: entry for name, (_, entry) in self._entries.items()}

    def model_file(self, name: str) -> Path:
        """Where a model's entry is written."""
        return self._entries[name][0]

    @cached_property
    def _entries(self) -> dict[str, tuple[Path, ModelEntry]]:
        entries: dict[str, tuple[Path, ModelEntry]] = {}
        files = [self.root / "models.yaml", self.root / "models.local.yaml"]
        for path in [*files, *sorted((self.root / "trained").glob("*/model.yaml"))]:
            for name, content in self._model_file(path).items():
                if not isinstance(name, str) or not NAME.fullmatch(name):
                    raise UserError(f"{path}: {name!r} is no model name: letters, digits, '.', '_' and '-' only")
                if name in entries:
                    other = entries[name][0].relative_to(self.root)
                    raise UserError(f"{path}: {name!r} is already in {other}; choose another name")
                entries[name] = path, ModelEntry.parse(content, f"{path}: {name}")
        return entries

    @staticmethod
    def _model_file(path: Path) -> dict:
        """{name: entry as written}; a trained model's file has one entry, called as its folder."""
        content = (read_yaml(path) if path.is_file() else None) or {}
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected 'name: entry' lines")
        if path.name == "model.yaml" and list(content) != [path.parent.name]:
            raise UserError(f"{path}: must hold one entry, called {path.parent.name!r} as its folder")
        return content

    def model(self, name: str) -> ModelEntry:
        if name not in self.models:
            raise UserError(f"no model {name!r} in models.yaml.{did_you_mean(name, self.models)}")
        return self.models[name]

    @cache
    def preprocess(self, name: str) -> Preprocess:
        return Preprocess.read(self.path("preprocess", name))

    @cache
    def ensemble(self, name: str) -> Ensemble:
        """The recipe, its members written out as model@preprocess and all of them known."""
        path = self.path("ensembles", name)
        return self.complete(Ensemble.read(path), path)

    def complete(self, recipe: Ensemble, path: Path | str) -> Ensemble:
        """The same of a recipe that is written in `path`."""
        members = self._members(recipe, path)
        heads = [member for member in members if self.is_head(member)]
        if heads and len(heads) < len(members) and recipe.blend == "prompts":
            raise UserError(
                f"{path}: members: {heads[0]} is a trained head, whose columns are classes; write 'blend: classes'"
            )
        return recipe.model_copy(update={"members": members})

    def is_head(self, member: str) -> bool:
        """Whether a member is trained on another one's features, so that its columns are classes."""
        return self.model(member.partition("@")[0]).family == HEAD

    def tower(self, member: str) -> str:
        """The member whose image features a member takes: itself, or the base of a head (with the same pixels)."""
        model, _, preprocess = member.partition("@")
        entry = self.model(model)
        if entry.base is None:
            return member
        base = self._told(self.model_file(model), lambda: self.member(entry.base, preprocess))
        if self.is_head(base):
            raise UserError(f"{self.model_file(model)}: base: {entry.base} is a head itself; give the model below it")
        return base

    def _members(self, recipe: Ensemble, path: Path | str) -> dict[str, Member]:
        members: dict[str, Member] = {}
        for text, use in recipe.members.items():
            member = self._told(path, lambda text=text: self.member(text))
            if member in members:
                raise UserError(f"{path}: member {member} is there twice")
            if use.prompts is not None:
                self._check_prompts(use.prompts, f"{path}: members.{text}.prompts")
            if recipe.match == "temperature" and use.temperature is None:
                use = use.model_copy(update={"temperature": self._temperature(text, path)})
            members[member] = use
        return members

    def _check_prompts(self, name: str, where: str) -> None:
        known = [*self.made_prompts, *(path.name for path in (self.root / "prompts").glob("*/"))]
        if name not in known:
            raise UserError(f"{where}: no prompt set {name!r}.{did_you_mean(name, known)}")

    def _temperature(self, text: str, path: Path | str) -> float:
        model = text.partition("@")[0]
        temperature = self.model(model).temperature
        if temperature is None:
            raise UserError(
                f"{path}: match: temperature: {text} has none; write 'temperature:' beside its weight, or "
                f"in the entry {model!r} of {self.model_file(model)}"
            )
        return temperature

    @staticmethod
    def _told(path: Path | str, get: Callable[[], str]) -> str:
        try:
            return get()
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def member(self, text: str, preprocess: str | None = None) -> str:
        """'model' or 'model@preprocess' -> 'model@preprocess', both known."""
        model, _, named = text.partition("@")
        preprocess = preprocess or named or self.model(model).preprocess
        self.model(model)
        self.path("preprocess", preprocess)
        return f"{model}@{preprocess}"
