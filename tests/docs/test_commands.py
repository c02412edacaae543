"""Every command in the README and in docs/ works: run in order, page by page, in a clone with images and stand-ins.

By default each is checked as far as the command line goes, and those of the README are run in this process; `make
test-slow` runs all of them as real processes.
"""

import functools
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.cli._options import parse
from pipeline.recipes import Project

from ..conftest import ROOT
from . import pages, project

WITH_STEPS = [page for page in pages.PAGES if pages.steps(page)]
MAINTAIN = ("test", "test-slow", "test-faults", "lock", "audit", "sbom", "bench", "help")  # only checked


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return project.tiny_checkpoints(tmp_path_factory.mktemp("stand-ins"))


@pytest.fixture
def root(tmp_path, checkpoints):
    found = project.cloned(tmp_path / "project")
    project.with_images(found)
    project.with_models(found, checkpoints)
    return found


@functools.cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def verbs(step: pages.Step) -> list[list[str]]:
    """The arguments of the package in a line, as make would hand them over."""
    if step.command.startswith("python -m pipeline "):
        return [shlex.split(step.command, comments=True)[3:]]
    if not step.command.startswith("make "):
        return []
    words = shlex.split(re.sub(r"\$\([^)]*\)", "x", step.command), comments=True)
    told = subprocess.run(
        [*words[:1], "PYTHON=python", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, f"{step.where}: {step.command}: {told.stderr}"
    lines = [line for line in told.stdout.replace("\\\n", " ").splitlines() if " -m pipeline " in line]
    return [shlex.split(line.partition(" -m pipeline ")[2]) for line in lines]


def target(step: pages.Step) -> str:
    return shlex.split(step.command)[1] if step.command.startswith("make ") else ""


def known(recipes: Project, kind: str) -> set[str]:
    return set(recipes.models if kind == "models" else recipes.names(kind))


def named(args) -> list[tuple[str, str]]:
    """(kind, name) of all recipes that the arguments of a verb name."""
    found = []
    for kind in ("competitions", "ensembles", "preprocess", "models", "datasets", "benchmarks"):
        name = getattr(args, kind if kind == "preprocess" else kind.removesuffix("s"), None)
        found += [(kind, name)] if name and (kind, args.verb) != ("competitions", "new") else []
    for key in ("datasets", "models"):
        found += [(key, word) for words in getattr(args, key, None) or () for word in words.split()]
    if getattr(args, "recipe", None):
        found.append(({"train": "training", "sweep": "sweeps"}[args.verb], Path(args.recipe).stem))
    return found


def makes(recipes: Project, args) -> set[str | None]:
    """The names that later lines may use."""
    match args.verb:
        case "new":
            return {args.competition}
        case "train":
            return {Path(args.recipe).stem}
        case "sweep":
            return {recipes.sweep(Path(args.recipe).stem).out}
    return set()


@pytest.mark.parametrize("page", WITH_STEPS, ids=pages.name)
def test_commands_are_understood(page):
    recipes, made = Project(ROOT), set()
    for step in pages.steps(page):
        if step.file:
            made |= {Path(step.file).stem, *(yaml.safe_load(step.text) if step.file.startswith("models") else ())}
            continue
        program = step.command.split()[0]
        assert program in ("make", "python", *pages.SHELL), f"{step.where}: {step.command}"
        assert program != "make" or target(step) in targets(), f"{step.where}: {step.command}"
        for arguments in verbs(step):
            if "--help" in arguments:
                continue
            args = parse(arguments)
            for kind, name in named(args):
                name = name.partition("@")[0]
                assert name in known(recipes, kind) | made, f"{step.where}: {step.command}: no {name} in {kind}"
            made |= makes(recipes, args)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_no_command_hides(page):
    """All commands are in blocks of their own, and those in the text are of targets that exist."""
    assert not re.findall(r"^ {4}(?:make|python) .*", page.read_text(), re.MULTILINE), "use a block: ```sh"
    for mentioned in re.findall(r"`make ([a-z-]+)", pages.prose(page)):
        assert mentioned in targets(), f"make {mentioned}"


def write(step: pages.Step, root) -> None:
    path = root / step.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((path.read_text() if step.append else "") + "\n\n" * step.append + step.text)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_STEPS, ids=pages.name)
def test_commands_run(page, root):
    for step in pages.steps(page):
        if step.file:
            write(step, root)
        elif not step.only_checked and target(step) not in MAINTAIN:
            result = project.shell(step.command, root)
            assert result.returncode == 0, f"{step.where}: {step.command}\n{result.stdout}\n{result.stderr}"


def test_the_readme_runs(root, monkeypatch, capsys):
    """The same of the README, without a new process for each line."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for step in pages.steps(ROOT / "README.md"):
        arguments = verbs(step)
        if step.only_checked or target(step) in MAINTAIN:
            continue
        if not arguments:
            assert project.shell(step.command, root).returncode == 0, step.command
        for words in arguments:
            assert main(words) == 0, f"{step.where}: {step.command}\n{capsys.readouterr().err}"
