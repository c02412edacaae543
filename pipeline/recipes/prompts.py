"""Prompt sets: prompts/<set>/_shared.yaml + one YAML per class -> the prompt columns, class by class."""

import re
import shutil
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from ..core.digests import digest_of
from ..core.errors import Exists, NotFound, UserError, did_you_mean
from .reading import read_yaml
from .schema import Finite, Names, Recipe, unique

SUBSET = "# Written by make sweep: a subset of the templates of"
LONGEST_STEM = 200  # bytes of a file name; file systems allow 255
BRACES = re.compile(r"[{}]")


def _templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        if template.count("{}") < 1 or BRACES.search(template.replace("{}", "")):
            raise ValueError(f"template {template!r} must contain {{}} for the class name and no other braces")
    return unique(templates, "templates")


class Shared(Recipe):
    """_shared.yaml: the templates of every class; `classes: any` lets a class do without a file of its own."""

    templates: Names = ()
    """templates of every class, each with `{}` for the class name"""
    classes: Literal["listed", "any"] = "listed"
    """`any`: a class needs no file of its own"""

    _check = field_validator("templates")(_templates)


class ClassPrompts(Recipe):
    """<class>.yaml: the class's own names, templates and prompts."""

    class_name: str | None = Field(default=None, alias="class")
    """the class name, where the file is called otherwise"""
    name: Annotated[str, Field(min_length=1)] | None = None
    """how the class is called in templates (default: its class name)"""
    aliases: Names = ()
    """further names; each fills every template too"""
    templates: Names = ()
    """templates it adds"""
    without: Names = ()
    """shared templates it leaves out"""
    prompts: Names = ()
    """whole sentences of its own"""
    weights: dict[str, Annotated[Finite, Field(ge=0)]] = {}
    """`{prompt: weight}` for pooling by mean; 0 leaves a prompt out"""

    _check = field_validator("templates")(_templates)


@dataclass(frozen=True)
class PromptSet:
    """P prompts, class by class in label order, and for each its label, weight, template ('' for none) and file.

    `weighting` names the way the weights are found from the images; '' means that they are simply known.
    """

    class_names: tuple[str, ...]
    prompts: tuple[str, ...]
    prompt_class: tuple[int, ...]
    weights: tuple[float, ...]
    templates: tuple[str, ...]
    files: tuple[Path, ...]
    weighting: str = ""

    def files_of(self, prompts: Collection[str]) -> list[str]:
        """The files in which these prompts are written, each once."""
        return list(
            dict.fromkeys(str(file) for prompt, file in zip(self.prompts, self.files, strict=True) if prompt in prompts)
        )

    @property
    def near_duplicates(self) -> list[tuple[str, str, Path]]:
        """(first, second, file) of prompts of one class that most models cannot tell apart: they count twice."""
        first: dict[str, str] = {}
        pairs = [
            (first.setdefault(as_tokenised(prompt), prompt), prompt, file)
            for prompt, file in zip(self.prompts, self.files, strict=True)
        ]
        return [pair for pair in pairs if pair[0] != pair[1]]

    @property
    def digest(self) -> str:
        """Of all that decides the columns; of weights that are found from images it is how, not what was found."""
        content: dict[str, Any] = {
            "class_names": self.class_names,
            "prompts": self.prompts,
            "prompt_class": self.prompt_class,
            "weights": self.weights,
        }
        if self.weighting:
            content |= {
                "weights": [weight > 0 for weight in self.weights],
                "weighting": self.weighting,
                "templates": self.templates,
            }
        return digest_of(content)


def file_stem(class_name: str) -> str:
    """The file name (without .yaml) in which the prompts of a class are looked for: 'Least Auklet' -> least_auklet."""
    stem = re.sub(r"\W+", "_", class_name.strip().lower()).strip("_") or "class"
    return stem.encode(errors="replace")[:LONGEST_STEM].decode(errors="ignore")


def load_prompts(folder: Path, class_names: tuple[str, ...]) -> PromptSet:
    """The prompts of `class_names` from a prompt set's folder; UserError names every class without any."""
    if not folder.is_dir():
        known = [path.name for path in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise NotFound(f"no prompt set {folder}.{did_you_mean(folder.name, known)}")
    shared = Shared.read(folder / "_shared.yaml") if (folder / "_shared.yaml").is_file() else Shared()
    files = files_of_classes(folder, class_names, shared.classes == "any")
    prompts, prompt_class, weights, templates, written_in = [], [], [], [], []
    for label, class_name in enumerate(class_names):
        path, recipe = files[class_name]
        own, made_by = _class_prompts(path, recipe, shared, class_name)
        prompts += own
        templates += made_by
        prompt_class += [label] * len(own)
        weights += [recipe.weights.get(prompt, 1.0) for prompt in own]
        written_in += [path] * len(own)
    found = PromptSet(
        class_names, tuple(prompts), tuple(prompt_class), tuple(weights), tuple(templates), tuple(written_in)
    )
    _refuse_shared_prompts(found)
    return found


def files_of_classes(
    folder: Path, class_names: tuple[str, ...], any_class: bool
) -> dict[str, tuple[Path, ClassPrompts]]:
    """{class name: its file and what is written there}; with `any_class` some may have _shared.yaml and nothing own."""
    by_stem: dict[str, str] = {}
    for name in class_names:
        by_stem.setdefault(file_stem(name), name)
    found: dict[str, tuple[Path, ClassPrompts]] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.name == "_shared.yaml":
            continue
        recipe = ClassPrompts.read(path)
        name = recipe.class_name or by_stem.get(path.stem.lower(), "")
        if name not in class_names:
            missing = [file_stem(n) for n in class_names if not (folder / f"{file_stem(n)}.yaml").is_file()]
            near = did_you_mean(recipe.class_name or path.stem, missing or class_names)
            raise NotFound(f"{path}: its file name (or its key 'class') is no class of the competition.{near}")
        if name in found:
            raise UserError(f"{path}: class {name!r} already has {found[name][0]}")
        found[name] = path, recipe
    absent = [name for name in class_names if name not in found]
    if any_class:
        return found | {name: (folder / "_shared.yaml", ClassPrompts()) for name in absent}
    if absent:
        files = ", ".join(_file_to_add(folder, name) for name in absent[:3]) + (", ..." if absent[3:] else "")
        raise NotFound(
            f"No prompts for classes: {absent}. Add {files}, "
            f"or 'classes: any' in {folder}/_shared.yaml if its templates are enough"
        )
    return found


def _file_to_add(folder: Path, class_name: str) -> str:
    file = folder / f"{file_stem(class_name)}.yaml"
    return f"a file with 'class: {class_name}' ({file} is another class's)" if file.exists() else str(file)


def _class_prompts(path: Path, recipe: ClassPrompts, shared: Shared, class_name: str) -> tuple[list[str], list[str]]:
    """A class's prompts and the template that made each."""
    for template in recipe.without:
        if template not in shared.templates:
            raise NotFound(
                f"{path}: without: {template!r} is no template of _shared.yaml."
                f"{did_you_mean(template, shared.templates)}"
            )
    prompts, made_by = filled(recipe, shared, class_name)
    if not prompts:
        raise NotFound(f"{path}: class {class_name!r} has no prompts; add templates or prompts")
    if any(not prompt.strip() for prompt in prompts):
        raise UserError(f"{path}: empty prompt")
    try:
        unique(tuple(prompts), "prompts")
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    for prompt in recipe.weights:
        if prompt not in prompts:
            raise NotFound(f"{path}: weights: {prompt!r} is no prompt of this class.{did_you_mean(prompt, prompts)}")
    if not any(recipe.weights.get(prompt, 1.0) for prompt in prompts):
        raise UserError(f"{path}: all weights are zero")
    return prompts, made_by


def filled(recipe: ClassPrompts, shared: Shared, class_name: str) -> tuple[list[str], list[str]]:
    """A class's prompts, unchecked, and the template that made each ('' for whole sentences)."""
    templates = [t for t in (*shared.templates, *recipe.templates) if t not in recipe.without]
    names = (recipe.name or class_name, *recipe.aliases)
    prompts = [template.replace("{}", name) for name in names for template in templates] + list(recipe.prompts)
    return prompts, [template for _ in names for template in templates] + [""] * len(recipe.prompts)


def as_tokenised(prompt: str) -> str:
    """What most tokenisers make of a prompt before they cut it up: lower case, single spaces, composed characters."""
    return " ".join(unicodedata.normalize("NFC", prompt).split()).lower()


def _refuse_shared_prompts(found: PromptSet) -> None:
    first: dict[str, int] = {}
    for column, (prompt, label) in enumerate(zip(found.prompts, found.prompt_class, strict=True)):
        other = first.setdefault(as_tokenised(prompt), column)
        if found.prompt_class[other] != label:
            alike = f" ({found.prompts[other]!r}, one to most models)" if found.prompts[other] != prompt else ""
            names = found.class_names[found.prompt_class[other]], found.class_names[label]
            raise UserError(
                f"{found.files[column]}: duplicate prompt {prompt!r}, of {names[0]!r} in "
                f"{found.files[other]}{alike} and of {names[1]!r}; remove one, it cannot tell them "
                "apart"
            )


def write_subset(source: Path, target: Path, class_names: tuple[str, ...], keep: Sequence[str]) -> None:
    """Write a prompt set with only the templates `keep` of another's _shared.yaml.

    The files of the classes are the same but for what they say about a template that is gone. A folder that is there
    is replaced if it was written like this; UserError if it was not.
    """
    if target.exists() and not is_subset(target):
        raise Exists(f"{target}: is a prompt set that was not written as a subset of another; it is not replaced")
    shared = Shared.read(source / "_shared.yaml")
    gone = [template for template in shared.templates if template not in keep]
    contents = {"_shared.yaml": shared.model_dump() | {"templates": [t for t in shared.templates if t in keep]}}
    for class_name, (path, recipe) in files_of_classes(source, class_names, shared.classes == "any").items():
        if path.name == "_shared.yaml":  # a class without a file of its own
            continue
        content = read_yaml(path) or {}
        lost = {t.replace("{}", name) for t in gone for name in (recipe.name or class_name, *recipe.aliases)}
        lost -= set(recipe.prompts)
        if "without" in content:
            content["without"] = [template for template in recipe.without if template not in gone]
        if "weights" in content:
            content["weights"] = {prompt: weight for prompt, weight in recipe.weights.items() if prompt not in lost}
        contents[path.name] = content
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, content in contents.items():
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (target / name).write_text(f"{SUBSET} {source.name}.\n{text}", encoding="utf-8")


def is_subset(folder: Path) -> bool:
    """Whether a prompt set was written by `write_subset`."""
    shared = folder / "_shared.yaml"
    return shared.is_file() and shared.read_text(encoding="utf-8").startswith(SUBSET)
