"""What all recipes are made of: the base class that explains what is wrong, and the types of their keys."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from ..core.errors import UserError, did_you_mean
from .reading import read_yaml

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LONGEST_NAME, LONGEST_PATH = 255, 1000  # of a file or folder in bytes, of a path in characters
MAX_PIXELS = 178_956_970  # of one image: where Pillow refuses to go on, about 0.7 GB in memory
# Unicode categories that no name in a CSV may have: control characters, line and paragraph separators, and halves of
# surrogate pairs, which stand for bytes that are no UTF-8
UNSAFE = {"Cc", "Zl", "Zp", "Cs"}


class Recipe(BaseModel):
    """Base of all recipes: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, content: Any, where: str) -> Self:
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
    def read(cls, path: Path) -> Self:
        return cls.parse(read_yaml(path), str(path))


def _explain(recipe: type[BaseModel], error: Mapping) -> str:
    key, found = ".".join(str(part) for part in error["loc"]), _short(error["input"])
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key '{key}'.{did_you_mean(str(error['loc'][-1]), _known_keys(recipe, error['loc'][:-1]))}"
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


def _known_keys(recipe: type[BaseModel], loc: Iterable[int | str]) -> set[str]:
    """The keys of what lies at `loc` in a recipe; an index, or a name in a mapping, leads to what its values may be."""
    models = {recipe}
    for part in loc:
        inner = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        models = {found for annotation in inner for found in _models(annotation)} or models
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The recipes that an annotation names, however deep: in `dict[str, A | B]` A and B."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


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
Item = TypeVar("Item")
ListOf = Annotated[tuple[Item, ...], Field(strict=False)]  # a list in YAML
Names = ListOf[str]
Triple = Annotated[tuple[Finite, Finite, Finite], Field(strict=False)]
Scalar = bool | int | Finite | str
Temperature = Annotated[Finite, Field(gt=0)]


def unique(values: tuple[str, ...], what: str) -> tuple[str, ...]:
    twice = sorted(value for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"duplicate {what}: {twice}")
    return values


def unsafe(text: str) -> bool:
    """Whether a CSV cannot hold the text safely: line breaks, control characters, halves of surrogate pairs."""
    return not text.isprintable() and any(unicodedata.category(char) in UNSAFE for char in text)


def checked_class_names(names: Any, where: str = "") -> tuple[str, ...]:
    """At least two different names that a CSV can hold; UserError, starting with `where`, for anything else."""
    at = f"{where}: " if where else ""
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"{at}must be a list of class names")
    if len(names) < 2:
        raise UserError(f"{at}needs at least two classes")
    broken = [name for name in names if unsafe(name)]
    if broken:
        raise UserError(f"{at}line breaks or control characters in {broken}; a CSV cannot hold them safely")
    try:
        return unique(tuple(names), "class names")
    except ValueError as error:
        raise UserError(f"{at}{error}") from None


def _named(value: Any) -> tuple[str, Any]:
    """`name` -> (name, None); `{name: argument}` -> (name, argument)."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.items()))
    raise ValueError(f"{value!r} is neither 'name' nor 'name: argument'")


def list_of_named(values: Any) -> tuple[tuple[str, Any], ...]:
    if not isinstance(values, list):
        raise ValueError("must be a list such as [name, {name: argument}]")
    return tuple(_named(value) for value in values)


def listed(values: tuple[tuple[str, Any], ...]) -> list:
    return [name if argument is None else {name: argument} for name, argument in values]


Named = Annotated[tuple[str, Any], BeforeValidator(_named)]  # a registered function and its argument
ListOfNamed = Annotated[tuple[tuple[str, Any], ...], BeforeValidator(list_of_named), PlainSerializer(listed)]


def checked_name(name: str, kind: str, hint: str = "") -> str:
    """A name that is a file's or folder's and cannot lead out of the project."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no {kind} name: letters, digits, '.', '_' and '-' only, at most 100.{hint}")
    return name
