"""`Project`: the recipes below one folder, each read once and checked against the others."""

import copy
import functools
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import Exists, Mismatch, NotFound, UserError, did_you_mean, prefixed
from .benchmark import Benchmark
from .competition import Competition
from .dataset import Dataset
from .ensemble import Ensemble, MemberUse
from .member import Member
from .model import ModelEntry, read_entries
from .preprocess import Preprocess
from .reading import read_json
from .schema import NAME, Recipe, checked_class_names, checked_name
from .sweep import Sweep
from .training import Training

BUILTIN = Path(__file__).parents[1] / "builtin"  # what an installed package brings; in a checkout it lies beside it
R = TypeVar("R", bound=Recipe)
Method = TypeVar("Method", bound=Callable[..., Any])
# folders in cache/ that belong to no competition
RESERVED = ("text", "datasets", "benchmarks", "canaries", "indexes", "weights")


def once(method: Method) -> Method:
    """A method of a project that is asked once for each argument; the project keeps the answers."""

    @functools.wraps(method)
    def asked(self: "Project", *arguments: str) -> Any:
        key = (method.__name__, *arguments)
        if key not in self.known:
            self.known[key] = method(self, *arguments)
        return self.known[key]

    return asked  # type: ignore[return-value]


class Project:
    """The recipes below `root`, each read once, so that an edit during a run cannot mix two states.

    With an installed package come built-in recipes, prompts and models; those below `root` go before them. Every getter
    raises UserError for an unknown name, naming the known ones.
    """

    def __init__(self, root: Path | str = "."):
        self.root = Path(root)
        self.roots = (self.root, BUILTIN) if BUILTIN.is_dir() else (self.root,)
        self.known: dict[tuple[str, ...], Any] = {}

    def over(self, folder: Path) -> "Project":
        """The same project, in which recipes and prompt sets below `folder` go before all others."""
        other = copy.copy(self)
        other.roots = (folder, *self.roots)
        return other

    def find(self, name: str) -> Path:
        """The file or folder of a relative name: below `root`, or else what comes with the package."""
        return next((root / name for root in self.roots if (root / name).exists()), self.root / name)

    def where(self, kind: str, name: str) -> str:
        """The file of a recipe, for messages: from `root`, where it lies below that."""
        path = self.find(f"{kind}/{name}.yaml")
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def _placed(self, recipe: R, *keys: str) -> R:
        """A recipe with the absolute paths of those files that only the package has."""
        found = {key: self.find(value) for key in keys if isinstance(value := getattr(recipe, key), str)}
        return recipe.model_copy(update={key: str(path) for key, path in found.items() if BUILTIN in path.parents})

    def names(self, kind: str) -> list[str]:
        """The names of all recipes of a kind ('competitions', 'preprocess', 'ensembles')."""
        return sorted({path.stem for root in self.roots for path in (root / kind).glob("*.yaml")})

    def path(self, kind: str, name: str) -> Path:
        """The file of a recipe, which is there."""
        if NAME.fullmatch(name) and (path := self.find(f"{kind}/{name}.yaml")).is_file():
            return path
        hint = self._hint(Path(name).name.removesuffix(".yaml"), self.names(kind))
        raise NotFound(f"no {kind}/{checked_name(name, 'recipe', hint)}.yaml.{hint}")

    def _hint(self, name: str, known: Iterable[str]) -> str:
        nothing = (
            f" There is none in {self.root.absolute()}; run from the project's folder, or give that folder: root=path"
        )
        return did_you_mean(name, known) or nothing

    def prompts_folder(self, name: str) -> Path:
        """Where the prompt set of a name lies."""
        return self.find(f"prompts/{checked_name(name, 'prompt set')}")

    @once
    def dataset(self, name: str) -> Dataset:
        return self._placed(Dataset.read(self.path("datasets", name)), "path")

    @once
    def benchmark(self, name: str) -> Benchmark:
        return Benchmark.read(self.path("benchmarks", name))

    @once
    def sweep(self, name: str) -> Sweep:
        return Sweep.read(self.path("sweeps", name))

    @once
    def training(self, name: str) -> Training:
        path = self.path("training", name)
        recipe = Training.read(path)
        recipe.check(self.dataset(recipe.dataset), str(path))
        return recipe

    @once
    def competition(self, name: str) -> Competition:
        if name in RESERVED:
            raise UserError(f"no competition can be called {name!r}: cache/{name} has another meaning")
        recipe = Competition.read(self.path("competitions", name))
        return self._placed(recipe, "images", "classes", "sample_submission", "solution")

    @once
    def class_names(self, name: str) -> tuple[str, ...]:
        """The classes of a competition in label order; from its list or the JSON file it names."""
        classes = self.competition(name).classes
        with prefixed(f"{self.where('competitions', name)}: classes"):
            if isinstance(classes, str):
                return checked_class_names(read_json(self.root / classes), classes)
            return checked_class_names(classes)

    def prior(self, name: str) -> tuple[float, ...] | None:
        """The class shares that a competition states, in label order; None when it states none."""
        with prefixed(f"{self.where('competitions', name)}: prior"):
            return self.competition(name).shares(self.class_names(name))

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
        files = [*(root / "models.yaml" for root in reversed(self.roots)), self.root / "models.local.yaml"]
        for path in [*files, *sorted((self.root / "trained").glob("*/model.yaml"))]:
            for name, entry in read_entries(path).items():
                if name in entries and entries[name][0].parent != BUILTIN:
                    other = entries[name][0].relative_to(self.root)
                    raise Exists(f"{path}: {name!r} is already in {other}; choose another name")
                entries[name] = path, self._placed(entry, "weights")
        return entries

    def model(self, name: str) -> ModelEntry:
        if name not in self.models:
            raise NotFound(f"no model {name!r} in models.yaml.{self._hint(name, self.models)}")
        return self.models[name]

    @once
    def preprocess(self, name: str) -> Preprocess:
        return Preprocess.read(self.path("preprocess", name))

    @once
    def ensemble(self, name: str) -> Ensemble:
        """The recipe, its members written out as model@preprocess and all of them known.

        A name with an @ is that member alone, an ensemble of one without a file.
        """
        path = self.ensemble_path(name)
        alone = "@" in name
        return self.complete(Ensemble.parse({"members": {name: 1}}, name) if alone else Ensemble.read(path), path)

    def ensemble_path(self, name: str) -> Path:
        """Where an ensemble is written; a member alone is written nowhere."""
        return Path(f"MODEL={name}") if "@" in name else self.path("ensembles", name)

    def complete(self, recipe: Ensemble, path: Path | str) -> Ensemble:
        """The same of a recipe that is written in `path`."""
        members = self._members(recipe, path)
        heads = [member for member in members if member.is_head]
        if heads and len(heads) < len(members) and recipe.blend == "prompts":
            raise Mismatch(
                f"{path}: members: {heads[0]} is a trained head, whose columns are classes; write 'blend: classes'"
            )
        witness = self._witness(recipe, path)
        if witness and any(member.tower == witness and use.weight for member, use in members.items()):
            raise Mismatch(f"{path}: witness: {witness} is a member, and is to judge what it says; take another tower")
        return recipe.model_copy(update={"members": members, "witness": witness})

    def _witness(self, recipe: Ensemble, path: Path | str) -> Member | None:
        if recipe.witness is None:
            return None
        with prefixed(f"{path}: witness"):
            member = self.member(recipe.witness)
            if member.base is not None:
                raise Mismatch(f"{member} is a trained head, which has no features of its own; write {member.base}")
        return member

    def _members(self, recipe: Ensemble, path: Path | str) -> dict[Member, MemberUse]:
        members: dict[Member, MemberUse] = {}
        for text, use in recipe.members.items():
            with prefixed(str(path)):
                member = self.member(text)
            if member in members:
                raise UserError(f"{path}: member {member} is there twice")
            if use.prompts is not None:
                self._check_prompts(use.prompts, f"{path}: members.{text}.prompts")
            if recipe.match == "temperature" and use.temperature is None:
                use = use.model_copy(update={"temperature": self._temperature(text, path)})
            members[member] = use
        return members

    def _check_prompts(self, name: str, where: str) -> None:
        known = {path.name for root in self.roots for path in (root / "prompts").glob("*/")}
        if name not in known:
            raise NotFound(f"{where}: no prompt set {name!r}.{did_you_mean(name, known)}")

    def _temperature(self, text: str, path: Path | str) -> float:
        model = text.partition("@")[0]
        temperature = self.model(model).temperature
        if temperature is None:
            raise NotFound(
                f"{path}: match: temperature: {text} has none; write 'temperature:' beside its weight, or "
                f"in the entry {model!r} of {self.model_file(model)}"
            )
        return temperature

    def member(self, text: str, preprocess: str | None = None) -> Member:
        """'model' or 'model@preprocess' as a Member; pixels by `preprocess`, by that of the text, or by the model's."""
        model, _, named = text.partition("@")
        entry = self.model(model)
        preprocess = preprocess or named or entry.preprocess
        self.path("preprocess", preprocess)
        if entry.base is None:
            return Member(model, preprocess)
        file = self.model_file(model)
        with prefixed(str(file)):
            base = self.member(entry.base, preprocess)
            if base.is_head:
                raise UserError(f"base: {entry.base} is a head itself; give the model below it")
        return Member(model, preprocess, base)
