"""What is installed is what is pinned, and nothing talks to the network at run time."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools import lock

from .conftest import ROOT

FILES = sorted(ROOT.glob("requirements*.txt"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def pins(path: Path) -> dict[str, str]:
    """{name: version}; every line must be name==version, with hashes or without."""
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)(?: --hash=sha256:[0-9a-f]{64})*", line) for line in lines(path)]
    return {canonical(match[1]): match[2] for match in found}


LOCK = pins(ROOT / "requirements.lock")


def brought(name: str, extras: frozenset[str], seen: dict[str, str]) -> dict[str, str]:
    """{name: installed version} of a distribution and, further down, of all that it requires on this platform."""
    seen[canonical(name)] = version(name).partition("+")[0]
    for text in requires(name) or ():
        need = Requirement(text)
        wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})
        if wanted and canonical(need.name) not in seen:
            brought(need.name, frozenset(need.extras), seen)
    return seen


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_direct_requirements_are_pinned_and_in_the_lock(file):
    assert pins(file), "run `make lock` after adding a file"
    assert {name: LOCK.get(name) for name in pins(file)} == pins(file), "run `make lock`"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_all_that_is_brought_is_installed_as_locked(file):
    installed: dict[str, str] = {}
    for name in pins(file):
        try:
            version(name)
        except PackageNotFoundError:
            if file.name in ("requirements.txt", "requirements-dev.txt"):
                raise
            pytest.skip(f"{name} is not installed: its make target was never run")
        brought(name, frozenset(), installed)
    drift = {name: (have, LOCK.get(name)) for name, have in installed.items() if LOCK.get(name) != have}
    drift = {name: both for name, both in drift.items() if name not in ("pip", "setuptools")}  # of the interpreter
    assert not drift, f"installed, locked: {drift}; run `make lock`"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_hashes_are_of_locked_versions(file):
    hashes = file.with_suffix(".hashes")
    assert all(" --hash=sha256:" in line for line in lines(hashes))
    assert pins(hashes).items() <= LOCK.items()


def test_every_installation_of_the_makefile_is_by_hash_or_locked():
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert all("--require-hashes" in line or "--constraint requirements.lock" in line for line in installs)


def test_a_wheel_with_another_hash_is_refused(tmp_path):
    """pip's own check, on a wheel made here: what `make` relies on."""
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    shutil.make_archive(str(tmp_path / "archive"), "zip", _unpacked_wheel(tmp_path / "content"))
    (tmp_path / "archive.zip").rename(wheel)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path), "--no-deps"]
    command += ["--target", str(tmp_path / "target"), "--require-hashes", "--requirement", str(tmp_path / "r.hashes")]
    for digest, accepted in ((hashlib.sha256(wheel.read_bytes()).hexdigest(), True), ("0" * 64, False)):
        (tmp_path / "r.hashes").write_text(f"thing==1 --hash=sha256:{digest}\n")
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
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
    found = {"a": ("1", "f" * 64, "a-1-py3-none-any.whl"), "b": ("2", "e" * 64, "b-2-cp311-cp311-linux_x86_64.whl")}
    assert lock.hashes(found) == f"a==1 --hash=sha256:{'f' * 64}\n"


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
    result = subprocess.run(command, cwd=project_root, env=environment(), capture_output=True, text=True, timeout=300)
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
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True, timeout=300)
    cut = isolated()
    code = "import socket; socket.create_connection(('1.1.1.1', 53), timeout=5)"
    assert subprocess.run([*cut, sys.executable, "-c", code], capture_output=True).returncode == 1, "it is cut off"
    result = subprocess.run(
        [*cut, sys.executable, "-m", "pipeline", "submit"],
        cwd=root,
        env=environment() | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
    assert float(re.search(r"accuracy (0\.\d+)", result.stdout)[1]) > 0.8
    assert (root / "submissions" / "demo" / "001-demo.csv").exists()
