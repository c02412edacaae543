"""Pages agree with the code: tables of keys and arguments, paths, links, pictures."""

import argparse
import importlib
import re

import pytest

from pipeline.cli._options import verbs
from tools.pages import SCHEMAS, described, written

from ..conftest import ROOT
from . import pages

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# what looks like a file of this project in the text of a page
PATH = re.compile(
    r"`((?:pipeline|tests|tools|docs|demo|bench|competitions|ensembles|preprocess|prompts|datasets)/[\w./-]+)`"
)
MADE = re.compile(r"mushrooms|mine|vehicles")  # what a reader writes


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_tables_are_those_of_the_code(page):
    assert written(page.read_text()) == page.read_text(), "run python tools/pages.py"


def test_every_schema_has_a_table():
    text = "".join(page.read_text() for page in pages.PAGES)
    assert [name for name in SCHEMAS if f"<!-- table: {name} -->" not in text] == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_says_what_it_is(name):
    assert set(described(SCHEMAS[name])) == set(SCHEMAS[name].model_fields)


def anchors(page) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_paths_exist(page):
    for path in PATH.findall(pages.prose(page)):
        assert (ROOT / path).exists() or MADE.search(path) or path.endswith("/name"), path


def test_every_page_is_listed():
    listed = {link for page in pages.PAGES if page.stem == "README" for link in LINK.findall(page.read_text())}
    names = {link.rpartition("/")[2].partition("#")[0] for link in listed}
    assert [page.name for page in pages.PAGES if page.name not in names | {"README.md"}] == []


def test_the_readme_is_one_page():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert picture.stat().st_size < 150_000, picture.name
        assert f"docs/pictures/{picture.name}" in "\n".join(lines)


def test_ci_runs_the_readmes_test_command():
    first = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    commands = [line.partition("#")[0].strip() for line in first.splitlines()]
    assert commands == ["make submit", "make test"]
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_target_and_variable_is_told():
    makefile, told = (ROOT / "Makefile").read_text(), (ROOT / "docs" / "commands.md").read_text()
    variables = re.findall(r"^([A-Z]+) +\?=", makefile, re.MULTILINE)
    variables += re.search(r"^OTHERS := ((?:.*\\\n)*.*)", makefile, re.MULTILINE)[1].replace("\\", "").split()
    assert [name for name in variables if not re.search(rf"\b{name}\b", told)] == []
    assert [name for name in re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE) if name not in told] == []


@pytest.mark.parametrize("verb", verbs())
def test_every_option_of_a_verb_stands_in_its_row(verb):
    own, told = argparse.ArgumentParser(), (ROOT / "docs" / "commands.md").read_text()
    getattr(importlib.import_module(f"pipeline.cli.{verb.replace('-', '_')}"), "arguments", lambda parser: None)(own)
    rows = [
        row
        for row in told.splitlines()
        if row.startswith("| `make ") and re.search(rf"\b{verb}`", row.partition(" | ")[0])
    ]
    options = [action.dest.upper() for action in own._actions if action.dest != "help"]
    assert len(rows) == 1
    assert [name for name in options if not re.search(rf"\b{name}\b", rows[0])] == []


def test_promises_name_tests_that_exist():
    text = (ROOT / "docs" / "RELIABILITY.md").read_text()
    source = {path.name: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    functions = set(re.findall(r"def (test_\w+)", "".join(source.values())))
    assert set(re.findall(r"\btest_\w+\.py", text)) - source.keys() == set()
    for begin in re.findall(r"\b(test_\w+)\b(?!\.py)", text):
        assert any(name.startswith(begin) for name in functions), begin
