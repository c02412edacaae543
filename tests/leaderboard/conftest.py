"""A project whose competition is on Kaggle, and the server that stands for it."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from pipeline.chain.csv_format import CsvFormat
from pipeline.leaderboard import upload

from ..conftest import IMAGES, fresh
from .kaggle_server import TOKEN, Server


@pytest.fixture
def server(monkeypatch, tmp_path) -> Server:
    """A server that the client in any process started here reaches, with good credentials; nothing waits long."""
    if importlib.util.find_spec("kaggle") is None:  # to import it would be to use it
        pytest.skip("kaggle is not installed: its make target was never run")
    server = Server()
    for name in ("no_proxy", "NO_PROXY", "XDG_CONFIG_HOME", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setattr(upload, "LOOKS", (0.0, 0.0))
    monkeypatch.setattr(upload, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(upload, "PATIENCE", 0.2)
    yield server
    server.close()


@pytest.fixture
def root(project_root) -> Path:
    """The small project, with `leaderboard: {kaggle: tiny-scenes}` and submission 001."""
    recipe = project_root / "competitions" / "tiny.yaml"
    content = yaml.safe_load(recipe.read_text()) | {"leaderboard": {"kaggle": "tiny-scenes"}}
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    add(project_root)
    return project_root


def add(root: Path, *changed: int) -> Path:
    """One more submission: all labels 0, but 1 at the places in `changed`."""
    form = CsvFormat(fresh(root))
    with form.ledger.locked():
        return form.ledger.add("both", form.text([int(n in changed) for n in range(IMAGES)]), {"made": "both"})


def lines(root: Path) -> list[dict[str, str]]:
    return CsvFormat(fresh(root)).ledger.log()


@pytest.fixture
def verb(command, root):
    """Run a verb on the competition in this process."""
    return lambda name, *arguments: command(root, name, "--competition", "tiny", *arguments)
