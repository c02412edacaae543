"""What is installed is what is pinned, and nothing talks to the network at run time."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.core import extras
from tools import lock

from .conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = lock.extras(PROJECT)
WANTED = {"": PROJECT["dependencies"], **EXTRAS}  # what is written in pyproject.toml; "": at run time
LINE = re.compile(r"([\w.-]+)==([\w.]+)((?: --hash=sha256:[0-9a-f]{64})?)(?:  # ([a-z ]+))?")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lines(file: str) -> dict[str, re.Match]:
    """{name: the line of a requirement file}; every line must be as LINE says."""
    written = [text for text in (ROOT / file).read_text().splitlines() if not text.startswith("#")]
    return {canonical((match := LINE.fullmatch(text))[1]): match for text in written}


ALL = lines("requirements-all.txt")


def brought(name: str, extras: frozenset[str], seen: dict[str, str]) -> dict[str, str]:
    """{name: installed version} of a distribution and, further down, of all that it requires on this platform."""
    seen[canonical(name)] = version(name).partition("+")[0]
    for text in requires(name) or ():
        need = Requirement(text)
        wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})
        if wanted and canonical(need.name) not in seen:
            brought(need.name, frozenset(need.extras), seen)
    return seen


@pytest.mark.parametrize("extra", WANTED)
def test_what_is_written_is_pinned_and_locked(extra):
    pins = {canonical(Requirement(pin).name): pin.partition("==")[2] for pin in WANTED[extra]}
    assert {name: ALL[name][2] for name in pins if name in ALL} == pins, "run `make lock`"


@pytest.mark.parametrize("extra", WANTED)
def test_all_that_is_brought_is_installed_as_locked(extra):
    installed: dict[str, str] = {}
    for pin in WANTED[extra]:
        name, options = Requirement(pin).name, Requirement(pin).extras
        try:
            version(name)
        except PackageNotFoundError:
            if extra in ("", "dev"):
                raise
            pytest.skip(f"{name} is not installed: its make target was never run")
        brought(name, frozenset(options), installed)
    of_extra = {name: m[2] for name, m in ALL.items() if not m[4] or extra in m[4].split()}
    drift = {name: (have, of_extra.get(name)) for name, have in installed.items() if of_extra.get(name) != have}
    drift = {name: both for name, both in drift.items() if name not in ("pip", "setuptools")}  # of the interpreter
    assert not drift, f"installed, locked: {drift}; run `make lock`"


def test_the_run_time_file_is_the_lines_without_an_extra():
    run_time = {name: match[0] for name, match in lines("requirements.txt").items()}
    assert run_time == {name: match[0] for name, match in ALL.items() if not match[4]}
    assert {extra for match in ALL.values() for extra in (match[4] or "").split()} == EXTRAS.keys()


def test_make_installs_exactly_the_lines_of_an_extra():
    """The commands as make would run them, up to pip: what has a hash first, by hash, and then the rest."""
    targets = [f"build/none/.installed-{extra}" for extra in EXTRAS]
    told = subprocess.run(["make", "-n", "VENV=build/none", *targets], cwd=ROOT, capture_output=True, text=True).stdout
    pipes = [command.rpartition(" | ") for command in told.splitlines() if "pip install" in command]
    assert len(pipes) == 2 * len(WANTED)
    for number, (chosen, _, pip) in enumerate(pipes):
        extra, hashed = list(WANTED)[number // 2], number % 2 == 0
        printed = subprocess.run(chosen, shell=True, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
        of_extra = [m for m in ALL.values() if (extra in m[4].split() if m[4] else not extra)]
        wanted = {match[1] for match in of_extra if bool(match[3]) == hashed}
        assert {text.partition("==")[0] for text in printed if not text.startswith("#")} == wanted
        assert ("--no-deps --require-hashes" in pip) == hashed


def test_a_wheel_with_another_hash_is_refused(tmp_path):
    """pip's own check, on a wheel made here: what `make` relies on."""
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    shutil.make_archive(str(tmp_path / "archive"), "zip", _unpacked_wheel(tmp_path / "content"))
    (tmp_path / "archive.zip").rename(wheel)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path), "--no-deps"]
    command += ["--target", str(tmp_path / "target"), "--require-hashes", "--requirement", str(tmp_path / "r.txt")]
    for digest, accepted in ((hashlib.sha256(wheel.read_bytes()).hexdigest(), True), ("0" * 64, False)):
        (tmp_path / "r.txt").write_text(f"thing==1 --hash=sha256:{digest}\n")
        result = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert (result.returncode == 0) == accepted, result.stderr
        assert accepted or "DO NOT MATCH THE HASHES" in result.stderr


def _unpacked_wheel(folder: Path) -> Path:
    info = folder / "thing-1.dist-info"
    info.mkdir(parents=True)
    (folder / "thing.py").touch()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "RECORD").write_text("thing.py,,\nthing-1.dist-info/METADATA,,\nthing-1.dist-info/WHEEL,,\n")
    return folder


def test_only_universal_wheels_are_hashed():
    universal, own = "a-1-py3-none-any.whl", "b-2-cp311-cp311-linux_x86_64.whl"
    package = {"name": "a", "version": "1", "wheels": [{"name": universal, "hashes": {"sha256": "f" * 64}}]}
    assert lock.line(package) == f"a==1 --hash=sha256:{'f' * 64}"
    package = {"name": "b", "version": "2+cpu", "wheels": [{"name": own, "hashes": {"sha256": "e" * 64}}]}
    assert lock.line(package) == "b==2"


def test_an_extra_may_include_another():
    project = {"name": "x", "optional-dependencies": {"report": ["a==1"], "train": ["x[report]", "b==2"]}}
    assert lock.extras(project) == {"report": ["a==1"], "train": ["a==1", "b==2"]}
    assert extras.pins("train") == ("tensorboard==2.21.0",), "what it brings itself"


# ---- the network

WATCHED = """
import json, os, sys
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind",
                 "urllib.Request"):
        seen.append([event, repr(arguments)])
sys.addaudithook(watch)
from pipeline.__main__ import main
code = main(sys.argv[2:])
open(sys.argv[1], "w").write(json.dumps({"code": code, "seen": seen}))
"""


def environment() -> dict[str, str]:
    """Of a user who never asked for offline mode."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def test_no_socket_is_used(project_root, tmp_path):
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "seen.json"), "submit", "--competition", "tiny"]
    result = subprocess.run(command, cwd=project_root, env=environment(), capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "seen.json").read_text()) == {"code": 0, "seen": []}, result.stderr


def isolated() -> list[str]:
    """A command that runs another without any network, or a skip where the kernel refuses."""
    for command in (["unshare", "--map-root-user", "--net"], ["unshare", "--net"]):
        try:
            if subprocess.run([*command, "true"], capture_output=True, timeout=60).returncode == 0:
                return command
        except OSError:
            break
    pytest.skip("this kernel gives no network namespaces")


@pytest.mark.faults
def test_the_demo_needs_no_network(tmp_path):
    root = tmp_path / "project"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True, timeout=1800)
    cut = isolated()
    code = "import socket; socket.create_connection(('1.1.1.1', 53), timeout=5)"
    assert subprocess.run([*cut, sys.executable, "-c", code], capture_output=True).returncode == 1, "it is cut off"
    result = subprocess.run(
        [*cut, sys.executable, "-m", "pipeline", "submit"],
        cwd=root,
        env=environment() | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, result.stderr
    assert float(re.search(r"accuracy (0\.\d+)", result.stdout)[1]) > 0.8
    assert (root / "submissions" / "demo" / "001-demo.csv").exists()
