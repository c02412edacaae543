"""Registered functions that recipes name: pixel ops, views, readers of data sets, ... YAML never names Python.

A recipe writes `name`, `name: value` or `name: {argument: value}`; the function's annotations are what is allowed, and
its traits (what it uses, what it needs) are declared where it is registered. A function of another package is known as
well, once it is registered: an installed package may offer it as an entry point of the group `zero_shot`.
"""

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import NotFound, UserError, did_you_mean

Found = TypeVar("Found")

# what a registered function looks at to decide one image: that image, all unlabelled test images, or labelled ones
Use = Literal["image", "test_set", "labels"]


class Registered(Protocol):
    """A registered function: called with what its kind is given, its traits are attributes."""

    __name__: str

    def __call__(self, *given: Any, **arguments: Any) -> Any: ...

    def __getattr__(self, trait: str) -> Any: ...


class Registry(dict[str, Registered]):
    """The functions of one kind by name, with their traits as attributes.

    The caller fills the first `given` parameters, a recipe the others. `traits` are what is declared of a function,
    with what holds if it is not; `uses=None` has to be declared.
    """

    def __init__(self, kind: str, given: int, **traits: Any):
        super().__init__()
        self.kind, self.given, self.traits = kind, given, traits

    def register(self, function: Any = None, **traits: Any) -> Any:
        """A decorator, with traits or bare, that adds a function under its own name."""
        if function is None:
            return functools.partial(self.register, **traits)
        declared = self.traits | traits
        assert declared.keys() == self.traits.keys(), f"a {self.kind} has the traits {list(self.traits)}"
        assert declared.get("uses", "image") in get_args(Use), f"uses: one of {get_args(Use)}"
        vars(function).update(declared)
        self[function.__name__] = function
        return function

    def find(self, name: Any, where: str) -> Registered:
        """The function of that name; UserError, naming `where` it is written, for an unknown one."""
        return find(self, self.kind, name, where)

    def bind(self, named: tuple[str, Any], where: str) -> tuple[Registered, dict[str, Any]]:
        """(function, checked keyword arguments) of what a recipe writes; UserError, naming `where`, if it is wrong."""
        function = self.find(named[0], where)
        return function, bind(function, self.given, *named, where)


def import_modules(package: str) -> None:
    """Import every module of a package, so that what is in them is registered; to be called at its end."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


@functools.cache
def _import_entry_points() -> None:
    for point in importlib.metadata.entry_points(group="zero_shot"):
        point.load()


def is_everywhere(function: Callable) -> bool:
    """Whether any process of this installation knows a registered function: it is no notebook's or script's own."""
    offered = {point.module.partition(".")[0] for point in importlib.metadata.entry_points(group="zero_shot")}
    return function.__module__.partition(".")[0] in {__name__.partition(".")[0], *offered}


def find(registry: Mapping[str, Found], kind: str, name: Any, where: str) -> Found:
    """What is registered under a name; UserError for an unknown one."""
    if name not in registry:
        _import_entry_points()
    if name not in registry:
        raise NotFound(f"{where}: unknown {kind} {name!r}.{did_you_mean(name, registry)}")
    return registry[name]


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
            raise NotFound(f"{where}: {name} has no argument {key!r}.{did_you_mean(key, parameters)}")
        try:
            adapter = TypeAdapter(parameters[key].annotation, config=ConfigDict(strict=True))
            adapter.validate_python(value)
        except ValidationError as error:
            raise UserError(f"{where}: {name}: {key}: {error.errors()[0]['msg']} (found {value!r})") from None
    needed = [key for key, p in parameters.items() if p.default is p.empty and key not in values]
    if needed:
        raise UserError(f"{where}: {name} needs {needed[0]!r}, e.g. '{name}: 2.0'")
    return values
