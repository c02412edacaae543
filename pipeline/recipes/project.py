"""`Project`: the recipes below one folder, each read once and checked against the others."""

from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TypeVar

from ..core.errors import UserError, did_you_mean
from .benchmark import Benchmark
from .competition import Competition
from .dataset import Dataset
from .ensemble import Ensemble, MemberUse
from .member import Member
from .model import ModelEntry
from .preprocess import Preprocess
from .reading import read_json, read_yaml
from .schema import NAME, Recipe, checked_class_names, checked_name
from .sweep import Sweep
from .training import Training

BUILTIN = Path(__file__).parents[1] / "builtin"  # what an installed package brings; in a checkout it lies beside it
R = TypeVar("R", bound=Recipe)
RESERVED = ("text", "datasets", "benchmarks", "canaries")  # folders in cache/ that belong to no competition


class Project:
    """The recipes below `root`, each read once, so that an edit during a run cannot mix two states.

    With an installed package come built-in recipes, prompts and models; those below `root` go before them. Every getter
    raises UserError for an unknown name, naming the known ones.
    """

    def __init__(self, root: Path | str = "."):
        self.root = Path(root)
        self.roots = (self.root, BUILTIN) if BUILTIN.is_dir() else (self.root,)
        self.made_prompts: dict[str, Path] = {}  # prompt sets that a run wrote elsewhere: {name: folder}
        if not self.find("competitions").is_dir():
            raise UserError(f"no competitions/ folder in {self.root.absolute()}; run from the project's folder")

    def find(self, name: str) -> Path:
        """The file or folder of a relative name: below `root`, or else what comes with the package."""
        return next((root / name for root in self.roots if (root / name).exists()), self.root / name)

    def _placed(self, recipe: R, *keys: str) -> R:
        """A recipe with the absolute paths of those files that only the package has."""
        named = {key: value for key in keys if isinstance(value := getattr(recipe, key), str)}
        found = {key: self.find(value) for key, value in named.items()}
        return recipe.model_copy(update={key: str(path) for key, path in found.items() if BUILTIN in path.parents})

    def names(self, kind: str) -> list[str]:
        """The names of all recipes of a kind ('competitions', 'preprocess', 'ensembles')."""
        return sorted({path.stem for root in self.roots for path in (root / kind).glob("*.yaml")})

    def path(self, kind: str, name: str) -> Path:
        hint = did_you_mean(Path(name).name.removesuffix(".yaml"), self.names(kind))
        file = f"{kind}/{checked_name(name, 'recipe', hint)}.yaml"
        if not self.find(file).is_file():
            raise UserError(f"no {file}.{hint}")
        return self.find(file)

    def prompts_folder(self, name: str) -> Path:
        """Where the prompt set of a name lies."""
        return self.made_prompts.get(name) or self.find(f"prompts/{checked_name(name, 'prompt set')}")

    @cache
    def dataset(self, name: str) -> Dataset:
        return self._placed(Dataset.read(self.path("datasets", name)), "path")

    @cache
    def benchmark(self, name: str) -> Benchmark:
        return Benchmark.read(self.path("benchmarks", name))

    @cache
    def sweep(self, name: str) -> Sweep:
        return Sweep.read(self.path("sweeps", name))

    @cache
    def training(self, name: str) -> Training:
        path = self.path("training", name)
        recipe = Training.read(path)
        recipe.check(self.dataset(recipe.dataset), str(path))
        return recipe

    @cache
    def competition(self, name: str) -> Competition:
        if name in RESERVED:
            raise UserError(f"no competition can be called {name!r}: cache/{name} has another meaning")
        recipe = Competition.read(self.path("competitions", name))
        return self._placed(recipe, "images", "classes", "sample_submission", "solution")

    @cache
    def class_names(self, name: str) -> tuple[str, ...]:
        """The classes of a competition in label order; from its list or the JSON file it names."""
        classes = self.competition(name).classes
        if not isinstance(classes, str):
            return checked_class_names(classes, f"competitions/{name}.yaml: classes")
        try:
            return checked_class_names(read_json(self.root / classes), classes)
        except UserError as error:
            raise UserError(f"competitions/{name}.yaml: classes: {error}") from None

    @cache
    def prior(self, name: str) -> tuple[float, ...] | None:
        """The class shares that a competition states, in label order; None when it states none."""
        given, names = self.competition(name).prior, self.class_names(name)
        if given is None:
            return None
        where = f"competitions/{name}.yaml: prior"
        if isinstance(given, dict):
            unknown, missing = [n for n in given if n not in names], [n for n in names if n not in given]
            if unknown:
                raise UserError(f"{where}: {unknown[0]!r} is no class.{did_you_mean(str(unknown[0]), names)}")
            if missing:
                raise UserError(f"{where}: no share for {missing}")
            given = [given[n] for n in names]
        if len(given) != len(names):
            raise UserError(f"{where}: {len(given)} shares for {len(names)} classes")
        return tuple(float(share) for share in given)

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
            for name, content in self._model_file(path).items():
                if not isinstance(name, str) or not NAME.fullmatch(name):
                    raise UserError(f"{path}: {name!r} is no model name: letters, digits, '.', '_' and '-' only")
                if name in entries and entries[name][0].parent != BUILTIN:
                    other = entries[name][0].relative_to(self.root)
                    raise UserError(f"{path}: {name!r} is already in {other}; choose another name")
                entries[name] = path, self._placed(ModelEntry.parse(content, f"{path}: {name}"), "weights")
        return entries

    @staticmethod
    def _model_file(path: Path) -> dict:
        """{name: entry as written}; a trained model's file has one entry, called as its folder."""
        content = (read_yaml(path) if path.is_file() else None) or {}
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected 'name: entry' lines")
        if path.name == "model.yaml" and list(content) != [path.parent.name]:
            raise UserError(f"{path}: must hold one entry, called {path.parent.name!r} as its folder")
        return content

    def model(self, name: str) -> ModelEntry:
        if name not in self.models:
            raise UserError(f"no model {name!r} in models.yaml.{did_you_mean(name, self.models)}")
        return self.models[name]

    @cache
    def preprocess(self, name: str) -> Preprocess:
        return Preprocess.read(self.path("preprocess", name))

    @cache
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
            raise UserError(
                f"{path}: members: {heads[0]} is a trained head, whose columns are classes; write 'blend: classes'"
            )
        return recipe.model_copy(update={"members": members})

    def _members(self, recipe: Ensemble, path: Path | str) -> dict[Member, MemberUse]:
        members: dict[Member, MemberUse] = {}
        for text, use in recipe.members.items():
            member = self._told(path, partial(self.member, text))
            if member in members:
                raise UserError(f"{path}: member {member} is there twice")
            if use.prompts is not None:
                self._check_prompts(use.prompts, f"{path}: members.{text}.prompts")
            if recipe.match == "temperature" and use.temperature is None:
                use = use.model_copy(update={"temperature": self._temperature(text, path)})
            members[member] = use
        return members

    def _check_prompts(self, name: str, where: str) -> None:
        known = [*self.made_prompts, *(path.name for root in self.roots for path in (root / "prompts").glob("*/"))]
        if name not in known:
            raise UserError(f"{where}: no prompt set {name!r}.{did_you_mean(name, known)}")

    def _temperature(self, text: str, path: Path | str) -> float:
        model = text.partition("@")[0]
        temperature = self.model(model).temperature
        if temperature is None:
            raise UserError(
                f"{path}: match: temperature: {text} has none; write 'temperature:' beside its weight, or "
                f"in the entry {model!r} of {self.model_file(model)}"
            )
        return temperature

    @staticmethod
    def _told(path: Path | str, get: Callable[[], Member]) -> Member:
        try:
            return get()
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def member(self, text: str, preprocess: str | None = None) -> Member:
        """'model' or 'model@preprocess' as a Member; pixels by `preprocess`, by that of the text, or by the model's."""
        model, _, named = text.partition("@")
        entry = self.model(model)
        preprocess = preprocess or named or entry.preprocess
        self.path("preprocess", preprocess)
        if entry.base is None:
            return Member(model, preprocess)
        file = self.model_file(model)
        base = self._told(file, partial(self.member, entry.base, preprocess))
        if base.is_head:
            raise UserError(f"{file}: base: {entry.base} is a head itself; give the model below it")
        return Member(model, preprocess, base)
