"""A small project and an endpoint that its environment names; nothing waits long."""

import pytest

from pipeline.describe import endpoint

from .chat_server import KEY, Server


@pytest.fixture
def server(monkeypatch):
    found = Server()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(endpoint.URL, found.address)
    monkeypatch.setenv(endpoint.KEY, KEY)
    monkeypatch.setenv(endpoint.MODEL, "tiny-talker")
    monkeypatch.setattr(endpoint, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(endpoint, "TIMEOUT", 5.0)
    yield found
    found.close()


@pytest.fixture
def write(command, project_root, server):
    """Run the verb in this process; the key is never seen, whatever happens."""

    def run(*words: str):
        done = command(project_root, "prompts-write", "COMPETITION=tiny", *words)
        assert KEY not in done.stdout + done.stderr
        for path in project_root.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
        return done

    return run
