"""Registered functions that recipes name: pixel ops, views, readers of data sets. YAML never names Python.

A recipe writes `name`, `name: value` or `name: {argument: value}`; the function's annotations are what is allowed.
"""

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import UserError, did_you_mean

# what a registered function looks at to decide one image: that image, all unlabelled test images, or labelled ones
Use = Literal["image", "test_set", "labels"]


def register(registry: dict[str, Callable], uses: Use) -> Callable[[Callable], Callable]:
    """A decorator that adds a function under its name and notes what it uses."""
    assert uses in get_args(Use), uses

    def add(function: Callable) -> Callable:
        function.uses = uses
        registry[function.__name__] = function
        return function

    return add


def bind(function: Callable, given: int, name: str, argument: Any, where: str) -> dict[str, Any]:
    """The checked keyword arguments of a function whose first `given` parameters the caller fills.

    A lone value is the first argument. UserError, naming `where` it is written, for a wrong or missing one.
    """
    parameters = dict(list(inspect.signature(function).parameters.items())[given:])
    if argument is None:
        values = {}
    elif isinstance(argument, dict):
        values = argument
    elif parameters:
        values = {next(iter(parameters)): argument}
    else:
        raise UserError(f"{where}: {name} takes no argument (found {argument!r})")
    for key, value in values.items():
        if key not in parameters:
            raise UserError(f"{where}: {name} has no argument {key!r}.{did_you_mean(key, parameters)}")
        try:
            adapter = TypeAdapter(parameters[key].annotation, config=ConfigDict(strict=True))
            adapter.validate_python(value)
        except ValidationError as error:
            raise UserError(f"{where}: {name}: {key}: {error.errors()[0]['msg']} (found {value!r})") from None
    needed = [key for key, p in parameters.items() if p.default is p.empty and key not in values]
    if needed:
        raise UserError(f"{where}: {name} needs {needed[0]!r}, e.g. '{name}: 2.0'")
    return values


def find(registry: dict[str, Callable], kind: str, name: Any, where: str) -> Callable:
    """The registered function; UserError for an unknown name."""
    if name not in registry:
        raise UserError(f"{where}: unknown {kind} {name!r}.{did_you_mean(name, registry)}")
    return registry[name]
