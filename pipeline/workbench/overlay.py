"""The recipes of a draft as a `Project`: the same strict reading, the same errors, as of saved files."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core.errors import UserError
from ..recipes import Competition, Dataset, Ensemble, Preprocess, Project


class DraftProject(Project):
    """The project with the files of `folder` before its own.

    What a draft cannot change is read by the project below. Nothing is remembered for the life of the process, as there
    is a new one for each edit.
    """

    def __init__(self, below: Project, folder: Path):
        self.below, self.root, self.roots = below, below.root, (folder, *below.roots)
        self._read: dict[str, Ensemble] = {}
        vars(self).update(_entries=below._entries, models=below.models)

    def ensemble(self, name: str) -> Ensemble:
        if name not in self._read:
            path = self.ensemble_path(name)
            self._read[name] = self.complete(Ensemble.read(path), path)
        return self._read[name]

    def competition(self, name: str) -> Competition:
        return self.below.competition(name)

    def dataset(self, name: str) -> Dataset:
        return self.below.dataset(name)

    def preprocess(self, name: str) -> Preprocess:
        return self.below.preprocess(name)

    def class_names(self, name: str) -> tuple[str, ...]:
        return self.below.class_names(name)

    def prior(self, name: str) -> tuple[float, ...] | None:
        return self.below.prior(name)


class Overlay:
    """A folder of this process with the texts of a draft, from which a DraftProject reads."""

    def __init__(self, below: Project):
        self.below, self.texts = below, {}
        self.folder = Path(tempfile.mkdtemp(prefix="workbench-"))

    def project(self, texts: Mapping[str, str]) -> DraftProject:
        """The project as it is with these files."""
        for name in self.texts.keys() - texts.keys():
            (self.folder / name).unlink(missing_ok=True)
        for name, text in texts.items():
            if self.texts.get(name) != text:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        self.texts = dict(texts)
        return DraftProject(self.below, self.folder)

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
