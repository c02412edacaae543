"""A small project whose features are computed once, and a copy of it for each test."""

import contextlib
import json
import shutil
import threading
import time
from dataclasses import replace

import pytest

pytest.importorskip("starlette", reason="the extra workbench is not installed")
pytest.importorskip("ruamel.yaml", reason="the extra workbench is not installed")

from pipeline.chain import main_job
from pipeline.workbench.server import Serving, bound
from pipeline.workbench.session import Session

from ..conftest import fresh, write_project


@pytest.fixture(scope="session")
def computed(tmp_path_factory, checkpoints):
    root = write_project(tmp_path_factory.mktemp("workbench") / "project", checkpoints)
    main_job.submit(fresh(root), "both")
    return root


@pytest.fixture
def root(tmp_path, computed):
    """A project with its cache and one submission."""
    return shutil.copytree(computed, tmp_path / "project")


@contextlib.contextmanager
def session_of(root, name="both", **more):
    found = Session(replace(fresh(root), keep_towers=True), name, more.pop("truth", None), more)
    try:
        yield found
    finally:
        found.held.close()


@pytest.fixture
def session(root):
    with session_of(root) as found:
        yield found


@contextlib.contextmanager
def served(session):
    """A running server of a session."""
    serving = Serving(session, bound(None))
    thread = threading.Thread(target=serving.run)
    thread.start()
    while not serving.server.started:
        time.sleep(0.01)
    try:
        yield serving
    finally:
        serving.server.should_exit = True
        thread.join(20)


def decoded(frame: bytes) -> dict:
    """The header of a frame."""
    length = int.from_bytes(frame[:4], "little")
    return json.loads(frame[4 : 4 + length])


def weigh(weight: float, member: str = "vit") -> dict:
    return {"kind": "member", "member": member, "weight": weight}


def add_prompt(text: str, label: int = 0) -> dict:
    return {"kind": "list", "key": "prompts", "do": "add", "prompt_set": "tiny", "label": label, "value": text}
