"""The README and the pages of docs/, as the tests read them: blocks of commands, and files that are to be written."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.(?:yaml|py|toml))(, at its end)?\n")  # how a file begins
NEEDS = re.compile(r"# needs ")  # a line that says so is checked, not run
SHELL = ("cp", "echo", "for", "mkdir")  # what a page may use beside make and python


@dataclass(frozen=True)
class Step:
    """A line of shell, or a file to write: what a reader of the page does next."""

    where: str
    command: str = ""
    file: str = ""
    text: str = ""
    append: bool = False

    @property
    def only_checked(self) -> bool:
        return bool(NEEDS.search(self.command))


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its blocks."""
    return FENCE.sub("", page.read_text())


def steps(page: Path) -> list[Step]:
    """What a reader does, from the top of the page to its end. Blocks of other languages are only shown."""
    found, text = [], page.read_text()
    for block in FENCE.finditer(text):
        where = f"{name(page)}:{text.count(chr(10), 0, block.start()) + 1}"
        language, content = block.groups()
        if language == "sh":
            found += [Step(where, command=line) for line in content.splitlines() if line and not line.startswith("#")]
        elif language in ("yaml", "python", "toml"):
            file = FILE.match(content)
            assert file, f"{where}: a block of {language} begins with '# path/of/the/file'"
            found.append(Step(where, file=file[1], text=content, append=bool(file[2])))
    return found
