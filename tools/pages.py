"""Writes the tables of docs/ from the code: python tools/pages.py, after a key of a recipe or a function was changed.

A table stands between `<!-- table: name -->` and `<!-- end -->`. Keys and what is said of them come from the schemas of
recipes (a string below each key), arguments from the signatures of registered functions. A test compares them.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.chain.prompt_weights import WEIGHTINGS  # noqa: E402
from pipeline.chain.temperatures import MATCHES  # noqa: E402
from pipeline.core.tables import markdown  # noqa: E402
from pipeline.images.ops import OPS  # noqa: E402
from pipeline.images.views import VIEWS  # noqa: E402
from pipeline.labelled.readers import READERS  # noqa: E402
from pipeline.learn.finetune.augment import AUGMENTATIONS  # noqa: E402
from pipeline.learn.finetune.settings import Finetune  # noqa: E402
from pipeline.maths.refine import STEPS  # noqa: E402
from pipeline.maths.zeroshot import SPACES  # noqa: E402
from pipeline.models import heads  # noqa: E402
from pipeline.models.family import CHECKS  # noqa: E402
from pipeline.recipes import (  # noqa: E402
    Benchmark,
    Competition,
    Dataset,
    Ensemble,
    ModelEntry,
    Preprocess,
    Sweep,
    Training,
)
from pipeline.recipes.competition import Rules  # noqa: E402
from pipeline.recipes.ensemble import MemberUse  # noqa: E402
from pipeline.recipes.prompts import ClassPrompts, Shared  # noqa: E402
from pipeline.recipes.sweep import Subsets, Vary  # noqa: E402
from pipeline.recipes.training import Unseen  # noqa: E402
from tests.test_architecture import DOORS, FLOORS, HOUSE  # noqa: E402

SCHEMAS = {
    "competition": Competition,
    "rules": Rules,
    "shared": Shared,
    "class": ClassPrompts,
    "model": ModelEntry,
    "preprocess": Preprocess,
    "ensemble": Ensemble,
    "member": MemberUse,
    "dataset": Dataset,
    "benchmark": Benchmark,
    "sweep": Sweep,
    "vary": Vary,
    "subsets": Subsets,
    "training": Training,
    "unseen": Unseen,
    "finetune": Finetune,
}
# {name: (functions by name, how many of their parameters a recipe does not give)}
FUNCTIONS: dict[str, tuple[dict[str, Callable], int]] = {
    "ops": (OPS, 2),
    "views": (VIEWS, 1),
    "refine": (STEPS, 2),
    "heads": (heads.METHODS, 2),
    "readers": (READERS, 1),
    "augmentations": (AUGMENTATIONS, 1),
}
BY_MODULE = ("heads", "readers")  # one file each, whose docstring says what it is
# keys whose values are registered names
REGISTERED = {
    (Ensemble, "space"): SPACES,
    (Ensemble, "match"): MATCHES,
    (Ensemble, "prompt_weights"): WEIGHTINGS,
    (ModelEntry, "allow"): CHECKS,
}
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """The Markdown of a table."""
    if name == "rooms":
        return _drawn(("floor", "room", ""), _rooms())
    if name in SCHEMAS:
        return _drawn(("key", "value", ""), _keys(SCHEMAS[name]))
    functions, given = FUNCTIONS[name]
    return _drawn(("name", "arguments", ""), _functions(functions, given, name in BY_MODULE))


def _drawn(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return markdown(head, rows).replace("  |", " |") + "\n"


def _rooms() -> Iterable[tuple[str, str, str]]:
    """The floors of the house from the top, and what the rooms say of themselves."""
    for number, floor in [
        ("door", DOORS),
        *sorted(((str(n), floor) for n, floor in enumerate(FLOORS, 1)), reverse=True),
    ]:
        for room in floor:
            path = next(p for p in (HOUSE / room / "__init__.py", HOUSE / f"{room}.py") if p.is_file())
            told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            shown = path.parent if path.stem == "__init__" and path.parent != HOUSE else path
            slash = "/" if shown.is_dir() else ""
            yield number, f"`{shown.relative_to(ROOT).as_posix()}{slash}`", _first_sentence(told)


def _keys(schema) -> Iterable[tuple[str, str, str]]:
    told = described(schema)
    for name, field in schema.model_fields.items():
        default = "needed" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        choices = REGISTERED.get((schema, name)) or _choices(field.annotation)
        others = [_shown(value) for value in choices if _shown(value) != default]
        value = f"{default}; or {', '.join(others)}" if others and default else ", ".join(others) or default
        yield f"`{field.alias or name}`", value, told.get(name, "")


def described(schema) -> dict[str, str]:
    """{field: the string below it} of a schema."""
    source = ast.parse(Path(inspect.getsourcefile(schema)).read_text(encoding="utf-8"))
    body = next(node.body for node in source.body if isinstance(node, ast.ClassDef) and node.name == schema.__name__)
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def _choices(annotation: Any) -> tuple:
    """The values of a Literal, also inside a list or beside None."""
    if get_origin(annotation) is Literal:
        return tuple(value for value in get_args(annotation) if isinstance(value, str))
    if get_origin(annotation) in (Annotated, UnionType, Union, tuple):
        parts = [part for part in get_args(annotation) if part not in (NoneType, ...)]
        return next((found for found in map(_choices, parts) if found), ())
    return ()


def _shown(value: Any) -> str:
    """A default as a recipe would have it; '' for none."""
    match value:
        case None | () | "":
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case str() | int() | float():
            return f"`{value}`"
        case tuple() | list() if all(isinstance(item, tuple) for item in value):
            return f"`[{', '.join(name for name, _ in value)}]`"
        case tuple() | list():
            return f"`[{', '.join(str(item) for item in value)}]`"
        case dict() if value:
            return f"`{{{', '.join(f'{key}: {item}' for key, item in value.items())}}}`"
    return ""  # a schema of its own, with a table of its own


def _functions(functions: dict[str, Callable], given: int, by_module: bool) -> Iterable[tuple[str, str, str]]:
    for name, function in functions.items():
        parameters = list(inspect.signature(function).parameters.values())[given:]
        arguments = ", ".join(f"`{p.name}`{_default(p)}" for p in parameters)
        told = inspect.getmodule(function) if by_module else function
        yield f"`{name}`", arguments, _first_sentence(inspect.getdoc(told) or "")


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return " (needed)"
    shown = _shown(parameter.default).strip("`")
    return f" {shown}" if shown else ""


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.partition("\n\n")[0].split()))[0]


def written(page: str) -> str:
    """A page with its tables as the code has them."""
    return MARKED.sub(lambda found: f"{found[1]}{table(found[2])}{found[3]}", page)


def main() -> None:
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if written(text) != text:
            path.write_text(written(text), encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
