"""What the page can change: one edit -> the texts of the files that are another after it.

An edit names what it found in the place it changes, so that of two tabs none undoes the other unseen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ..core.errors import UserError
from ..recipes import Finite, Recipe
from ..recipes.prompts import ClassPrompts, Shared, file_stem, files_of_classes, filled
from .document import Document, plain, written

Short = Annotated[str, Field(max_length=2000)]
Weight = Annotated[Finite, Field(ge=0, le=1e6)]
SHARED = "_shared.yaml"


class SetMember(Recipe):
    """The weight of a member of the ensemble; None takes it out, a new one is added."""

    kind: Literal["member"]
    member: Short
    weight: Weight | None


class SetKey(Recipe):
    """A key of the ensemble; None takes it out, and the default holds."""

    kind: Literal["set"]
    key: Literal["threshold", "pooling", "space", "match", "prompt_weights", "blend", "guards", "witness"]
    value: Short | bool | Finite | None


class ChangeList(Recipe):
    """A list: `refine` of the ensemble, or one of a prompt set's (`label` None: its shared templates).

    `found` is what stands at `index` now, to be replaced, removed or moved to `to`; what is added goes to `index`.
    """

    kind: Literal["list"]
    key: Literal["refine", "templates", "aliases", "without", "prompts"]
    do: Literal["add", "replace", "remove", "move"]
    prompt_set: Short = ""
    label: int | None = None
    index: Annotated[int, Field(ge=0)] = 0
    to: Annotated[int, Field(ge=0)] = 0
    found: Any = None
    value: Any = None


class WeighPrompts(Recipe):
    """The weight of prompts, by label and text; 0 switches them off, 1 is what holds when nothing is written."""

    kind: Literal["weigh"]
    prompt_set: Short
    prompts: Annotated[list[tuple[int, Short]], Field(max_length=20_000)]
    weight: Weight


class NameClass(Recipe):
    """How a class is called in templates; '' for its class name."""

    kind: Literal["name"]
    prompt_set: Short
    label: int
    value: Short


Edit = SetMember | SetKey | ChangeList | WeighPrompts | NameClass
READ = TypeAdapter(Annotated[Edit, Field(discriminator="kind")])


def read(message: Any) -> Edit:
    """An edit as the page sent it; UserError for anything else."""
    try:
        return READ.validate_python(message, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"no edit: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True)
class Files:
    """The texts of a draft, and where they lie to be read: `folder` has all of them.

    `parsed` keeps what an edit has left of them: to read YAML with its comments takes longer than all else of an edit.
    """

    texts: Mapping[str, str]
    folder: Path
    ensemble: str  # ensembles/<name>.yaml
    class_names: tuple[str, ...]
    parsed: dict[str, Document]

    def after(self, edit: Edit) -> dict[str, str]:
        """The texts that an edit changes; UserError where it finds something else than it says."""
        match edit:
            case SetMember():
                document = self.open(self.ensemble)
                _member(document, edit)
                return self._changed({self.ensemble: document})
            case SetKey():
                document = self.open(self.ensemble)
                _key(document, edit)
                return self._changed({self.ensemble: document})
            case ChangeList(key="refine"):
                document = self.open(self.ensemble)
                _listed(document.items("refine"), edit)
                if not document.content["refine"]:
                    document.drop("refine")
                    document.drop("witness")  # it takes part in refinement alone
                return self._changed({self.ensemble: document})
        return self._changed(Prompts(self, edit.prompt_set).after(edit))

    def open(self, name: str) -> Document:
        """A file to edit; an edit that fails leaves none that is half edited."""
        document, text = self.parsed.pop(name, None), self.texts.get(name, "")
        return document if document and document.is_of(text) else Document(text, name)

    def _changed(self, documents: Mapping[str, Document]) -> dict[str, str]:
        made = {name: document.text() for name, document in documents.items()}
        self.parsed.update(documents)
        return {name: text for name, text in made.items() if text != self.texts.get(name, "")}


def _member(document: Document, edit: SetMember) -> None:
    members = document.content.setdefault("members", {})
    if edit.weight is None:
        members.pop(edit.member, None)
    elif isinstance(members.get(edit.member), dict):
        members[edit.member]["weight"] = written(edit.weight)
    else:
        members[edit.member] = written(edit.weight)


def _key(document: Document, edit: SetKey) -> None:
    if edit.value is None:
        document.drop(edit.key)
    else:
        document.content[edit.key] = written(edit.value)


def _listed(items: list, edit: ChangeList) -> None:
    if edit.do == "add":
        items.insert(min(edit.index, len(items)), written(edit.value))
        return
    known = plain(items)
    at = edit.index if edit.index < len(known) and known[edit.index] == edit.found else None
    at = known.index(edit.found) if at is None and edit.found in known else at
    if at is None:
        raise UserError(f"{edit.key}: {edit.found!r} is no longer there; it was changed elsewhere meanwhile")
    if edit.do == "replace":
        items[at] = written(edit.value)
    else:
        item = items.pop(at)
        if edit.do == "move":
            items.insert(min(edit.to, len(items)), item)


class Prompts:
    """A prompt set of the draft; weights follow the prompts that they are of when those are changed."""

    def __init__(self, files: Files, name: str):
        self.files, self.name, self.folder = files, name, f"prompts/{name}"
        if not any(file.startswith(f"{self.folder}/") for file in files.texts):
            raise UserError(f"prompt set {name!r} is not of this ensemble")
        shared = f"{self.folder}/{SHARED}"
        self.shared = files.open(shared)
        found = files_of_classes(files.folder / self.folder, files.class_names, self._shared().classes == "any")
        self.own = {label: self._place(found[name][0], name) for label, name in enumerate(files.class_names)}
        self.documents = {shared: self.shared}

    def _shared(self) -> Shared:
        return Shared.parse(plain(self.shared.content), f"{self.folder}/{SHARED}")

    def _place(self, path: Path, class_name: str) -> str:
        """The file of a class; one that has none yet would get its own."""
        return f"{self.folder}/{file_stem(class_name) + '.yaml' if path.name == SHARED else path.name}"

    def _document(self, label: int) -> Document:
        if label not in self.own:
            raise UserError(f"no class {label}")
        name = self.own[label]
        if name not in self.documents:
            self.documents[name] = self.files.open(name)
        return self.documents[name]

    def _filled(self, label: int) -> list[str]:
        recipe = ClassPrompts.parse(plain(self._document(label).content), self.own[label])
        return filled(recipe, self._shared(), self.files.class_names[label])[0]

    def after(self, edit: ChangeList | WeighPrompts | NameClass) -> dict[str, Document]:
        """The documents of the set, edited."""
        if isinstance(edit, WeighPrompts):
            for label, prompt in edit.prompts:
                self._weigh(label, prompt, edit.weight)
            return self.documents
        labels = list(self.own) if edit.label is None else [edit.label]
        before = {label: self._filled(label) for label in labels}
        if isinstance(edit, NameClass):
            self._name(edit)
        else:
            document = self.shared if edit.label is None else self._document(edit.label)
            _listed(document.items(edit.key), edit)
            if not document.content[edit.key]:
                document.drop(edit.key)
            if edit.label is None:
                self._follow_in_without(edit)
        replaced = isinstance(edit, NameClass) or edit.do == "replace"
        for label in labels:
            self._carry_weights(label, before[label], replaced)
        return self.documents

    def _name(self, edit: NameClass) -> None:
        document = self._document(edit.label)
        if edit.value in ("", self.files.class_names[edit.label]):
            document.drop("name")
        else:
            document.content["name"] = written(edit.value)

    def _weigh(self, label: int, prompt: str, weight: float) -> None:
        document = self._document(label)
        weights = document.content.setdefault("weights", {})
        if weight == 1:
            weights.pop(prompt, None)
        else:
            weights[written(prompt)] = written(weight)
        if not weights:
            document.drop("weights")

    def _follow_in_without(self, edit: ChangeList) -> None:
        """A class that leaves a shared template out does so under its new text, or no longer."""
        if edit.do not in ("replace", "remove"):
            return
        for label in self.own:
            left_out = self._document(label).content.get("without") or []
            if edit.found in left_out:
                _listed(left_out, edit.model_copy(update={"index": 0}))
                if not left_out:
                    self._document(label).drop("without")

    def _carry_weights(self, label: int, before: list[str], replaced: bool) -> None:
        document = self._document(label)
        weights = document.content.get("weights")
        if not weights:
            return
        after = self._filled(label)
        renamed = dict(zip(before, after, strict=True)) if replaced and len(before) == len(after) else {}
        kept = {renamed.get(prompt, prompt): weight for prompt, weight in plain(weights).items()}
        kept = {prompt: weight for prompt, weight in kept.items() if prompt in after}
        if kept == plain(weights):
            return
        if kept:
            document.content["weights"] = written(kept)
        else:
            document.drop("weights")
