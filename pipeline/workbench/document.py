"""The text of a YAML file that is edited where it stands: comments, order, quotes and indentation stay."""

import io
import re
from collections import Counter
from difflib import SequenceMatcher
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from ..core.errors import UserError

DASH = re.compile(r"^( *)- ", re.MULTILINE)
WIDE = 1_000_000  # no line is folded


class Document:
    """A mapping read from YAML text; `text()` is that text again, with what was changed in `content`."""

    def __init__(self, text: str, where: str):
        self._line_end = "\r\n" if "\r\n" in text else "\n"
        text = text.replace("\r\n", "\n")
        dash = DASH.search(text)
        offset = len(dash[1]) if dash else 2
        self._yaml = YAML(typ="rt")
        self._yaml.preserve_quotes, self._yaml.width = True, WIDE
        self._yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
        try:
            found = self._yaml.load(text)
        except (YAMLError, ValueError) as error:
            raise UserError(f"{where}: cannot be edited here: {' '.join(str(error).split())}") from None
        if found is not None and not isinstance(found, CommentedMap):
            raise UserError(f"{where}: expected 'key: value' lines")
        self._original, self._whole = text, True
        self._before = text.rstrip("\n") + "\n" if found is None and text.strip() else ""  # only comments
        self.content = CommentedMap() if found is None else found

    def text(self) -> str:
        """As it is to be written; a file that has become empty has no text."""
        out = io.StringIO()
        if self.content:
            self._yaml.dump(self.content, out)
        made = self._before + out.getvalue()
        self._original = with_comments(self._original, made)
        self._whole = self._original == made
        return self._original.replace("\n", self._line_end)

    def is_of(self, text: str) -> bool:
        """Whether it is what reading `text` gives, comments and all."""
        return self._whole and self._original.replace("\n", self._line_end) == text

    def items(self, key: str) -> CommentedSeq:
        """The list under a key, made if there is none."""
        if not self.content.get(key):
            self.content[key] = CommentedSeq()
        elif not isinstance(self.content[key], CommentedSeq):
            raise UserError(f"{key}: must be a list, e.g. [a, b]")
        return self.content[key]

    def drop(self, key: str) -> None:
        """Take a key out; what is not there need not be."""
        self.content.pop(key, None)


def with_comments(before: str, after: str) -> str:
    """`after` with the lines of comments that only `before` has: ruamel drops those that follow what is taken out."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    lost = Counter(line for line in old if line.lstrip().startswith("#")) - Counter(new)
    if not lost:
        return after
    made = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for line in old[i:j] if tag != "equal" else ():
            if lost[line] > 0:
                lost[line] -= 1
                made.append(line)
        made += new[k:m]
    return "".join(made)


def written(value: Any) -> Any:
    """A value as the file is to hold it: text that YAML would read as something else is quoted."""
    if isinstance(value, float):
        short = round(value, 6)
        return int(short) if short == int(short) else short
    if isinstance(value, dict):
        return CommentedMap({written(key): written(one) for key, one in value.items()})
    if isinstance(value, list):
        return [written(one) for one in value]
    if not isinstance(value, str):
        return value
    try:
        same = yaml.safe_load(value) == value
    except yaml.YAMLError:
        same = False
    return value if same and ": " not in value and " #" not in value else DoubleQuotedScalarString(value)


def plain(value: Any) -> Any:
    """What a document holds, as plain dicts, lists and scalars."""
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
