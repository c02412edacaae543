"""YAML and JSON files, read strictly: what has made readers slow, crash or run code is told, with file and line."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import Damaged, NotFound, UserError

MAX_BYTES = 4_000_000  # of one YAML or JSON file; recipes are written by hand
MAX_DEPTH = 20  # lists and mappings inside each other; libyaml's own stack has no limit
MAX_DIGITS = 100  # of a number: beyond a float's range Python's conversions fail in ways of their own
NUMBER = re.compile(r"[-+.0-9][-+._:0-9a-fA-FxX]*")


class _Loader(yaml.CSafeLoader):
    """Safe YAML without duplicate keys (plain YAML keeps the last one silently)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            merge = key_node.tag == "tag:yaml.org,2002:merge"
            key = "<<" if merge else self.construct_object(key_node, deep=True)
            if merge:
                wrong = "merge keys (<<) are not used in recipes"
            elif not isinstance(key, (str, int, float)):
                wrong = "a key must be plain text; put it in quotes"
            elif key in seen:
                wrong = f"duplicate key {key!r}"
            else:
                seen.add(key)
                continue
            raise yaml.constructor.ConstructorError(None, None, wrong, key_node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, as plain dicts, lists and scalars; UserError names file and line."""
    text = _text(path)
    try:
        _refuse_what_recipes_do_not_use(text, path)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        if "'\\t'" in str(what) or "cannot start any token" in str(what):
            what = "a tab; indent with spaces" if mark and "\t" in text.splitlines()[mark.line] else what
        raise UserError(f"{path}:{line} {what}") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError names it."""
    text = _text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path}: not JSON: {error}") from None


def _text(path: Path) -> str:
    if not path.is_file():
        raise NotFound(f"no file {path}")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes; a recipe is a short file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Damaged(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


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
