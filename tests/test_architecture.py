"""The house: few rooms, one way of imports, files and functions that fit a screen."""

import ast
import subprocess
import sys

from .conftest import ROOT

HOUSE = ROOT / "pipeline"
# from the ground; a room imports from itself and from the floors below
FLOORS = [
    ["core"],
    ["recipes", "maths", "cluster"],
    ["images", "models"],
    ["chain"],
    ["classifier", "describe", "labelled", "leaderboard", "remote"],
    ["learn"],
    ["report"],
    ["workbench"],
    ["cli"],
]
DOORS = ["__main__", "__init__"]  # the ways in: they may import every room, and no room imports them


def rooms() -> set[str]:
    return {path.name.removesuffix(".py") for path in HOUSE.iterdir() if path.name != "__pycache__"}


def imported(path) -> set[str]:
    """The rooms that a file imports, anywhere in it."""
    depth, found = len(path.relative_to(HOUSE).parts), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert not (node.module or "").startswith("pipeline"), f"{path}: use relative imports"
    return found


def test_every_room_has_a_floor():
    assert rooms() == {name for floor in [*FLOORS, DOORS] for name in floor}
    assert len(FLOORS) <= 9


def test_imports_run_one_way():
    below: set[str] = set()
    for floor in [*FLOORS, DOORS]:
        for room in floor:
            files = (HOUSE / room).rglob("*.py") if (HOUSE / room).is_dir() else [HOUSE / f"{room}.py"]
            for path in files:
                upward = imported(path) - below - {room}
                assert not upward, f"{path.relative_to(ROOT)} imports {upward}, which is not on a lower floor"
        below |= set(floor)


def test_files_and_functions_fit_a_screen():
    for path in HOUSE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 300, f"{path.relative_to(ROOT)}: more than 300 lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 50, f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"


def test_every_room_says_what_it_is():
    for path in HOUSE.rglob("__init__.py"):
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
        assert first, f"{path.relative_to(ROOT)}: a few lines on what lives there, what it may import, where to start"


def test_recipes_need_no_torch():
    rooms = "pipeline.labelled.task, pipeline.chain.ledger, pipeline.images.processes"
    code = f"import sys, {rooms}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
