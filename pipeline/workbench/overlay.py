"""The recipes of a draft as a `Project`: the same strict reading, the same errors, as of saved files."""

import contextlib
import copy
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core.errors import UserError
from ..recipes import Project


class Overlay:
    """A folder of this process with the texts of a draft, which go before the files of the project `below`."""

    def __init__(self, below: Project):
        self.texts: dict[str, str] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="workbench-"))
        self._project = below.over(self.folder)

    def project(self, texts: Mapping[str, str]) -> Project:
        """The project as it is with these files; what a draft cannot change is not read again."""
        for name in [name for name, text in self.texts.items() if texts.get(name) != text]:
            (self.folder / name).unlink(missing_ok=True)  # to write over it may wait for the disk
        for name, text in texts.items():
            if self.texts.get(name) != text:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        self.texts = dict(texts)
        known = {key: answer for key, answer in self._project.known.items() if key[0] != "ensemble"}
        self._project = copy.copy(self._project)
        self._project.known = known
        return self._project

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """A UserError of this block, told with the names of the user's own files; its kind stays."""
        try:
            yield
        except UserError as error:
            error.args = (str(error).replace(f"{self.folder}/", ""),)
            raise

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
