"""tools/compare.py, on tables and on two checkouts."""

import subprocess
import sys

import pytest

from tools.compare import difference, verdict

from .conftest import ROOT


def test_a_difference_is_told_by_line_and_cell():
    assert difference(b"id,label\n0,1\n", b"id,label\n0,1\n") == ""
    assert difference(b"id,label\n0,1\n1,5\n", b"id,label\n0,2\n1,3\n") == "2 of 6 cells, first on line 2: 1 was 2"
    assert difference(b"id,label\n0,1\n", b"id,label\r\n0,1\r\n") == "equal cells, other quotes or line ends"
    assert difference(b"id,label\n0,1\n", b"id,label\n") == "2 lines were 1, or other columns"


def test_a_failure_is_a_difference_even_when_both_fail():
    assert verdict("exit status 1: error", "exit status 1: error") == "before: exit status 1: error"
    assert verdict({"a.csv": b""}, {"b.csv": b""}) == "files: ['a.csv'] were ['b.csv']"
    assert verdict({"a.csv": b"1"}, {"a.csv": b"1"}) == ""


@pytest.mark.slow
def test_another_class_order_is_found(tmp_path):
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(other)], check=True, timeout=1800)
    recipe = other / "competitions" / "demo.yaml"
    recipe.write_text(recipe.read_text().replace("Buildings, Forests", "Forests, Buildings"))
    command = [sys.executable, str(ROOT / "tools" / "compare.py"), str(ROOT), str(other), "--only", "submit demo, fp32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 1 and "DIFFERENT" in done.stdout and "0 of 1 identical" in done.stdout, done.stderr
