"""The server: who may ask, what is served, several tabs, and how it ends. A real one, over real sockets."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pipeline.core.errors import UserError
from pipeline.workbench import plane
from pipeline.workbench.server import bound

from ..conftest import ROOT
from .conftest import decoded, served, session_of, weigh


@pytest.fixture
def serving(session):
    with served(session) as found:
        yield found


def ask(serving, path="", method="GET", body=None, **headers):
    """(status, headers, body) of a request below the token; a path from / on is asked for as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", serving.guard.port, timeout=20)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    whole = path if path.startswith("/") else f"/{serving.guard.token}/{path}"
    connection.request(method, whole, body, headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def opened(serving, token=None, **headers):
    port = serving.guard.port
    headers = {"Origin": f"http://127.0.0.1:{port}"} | headers
    address = f"ws://127.0.0.1:{port}/{token or serving.guard.token}/socket"
    origin = headers.pop("Origin")
    return connect(address, origin=origin, additional_headers=headers, max_size=None, open_timeout=20)


def until(socket, kind: str) -> dict:
    """The next header of a kind."""
    while True:
        header = decoded(socket.recv(timeout=20))
        if header["type"] == kind:
            return header


def say(socket, word: str, **more) -> None:
    socket.send(json.dumps({"do": word, **more}))


def test_only_the_page_itself_may_ask(serving):
    port, token = serving.guard.port, serving.guard.token
    status, headers, body = ask(serving)
    assert (status, b"Workbench" in body) == (200, True)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
    for refused in (
        ask(serving, "/"),
        ask(serving, "/index.html"),
        ask(serving, f"/{token[:-1]}/"),
        ask(serving, f"/{token}x/"),
        ask(serving, f"//{token}/"),
        ask(serving, Host="evil.example"),
        ask(serving, Host=f"evil.example:{port}"),
        ask(serving, Host="127.0.0.1"),
        ask(serving, Origin="http://evil.example"),
        ask(serving, Origin="null"),
        ask(serving, Sec_Fetch_Site="cross-site"),
        ask(serving, method="POST", body=b"x"),
        ask(serving, method="PUT"),
        ask(serving, method="OPTIONS"),
        ask(serving, body=b"x" * 100),
    ):
        assert refused[0] in (403, 405, 413, 421), refused
        assert refused[2].count(b"\n") == 1, "one line"
        assert b"Workbench" not in refused[2]
    assert ask(serving, Host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize("port", [99_999, None])
def test_a_port_that_cannot_be_had_is_told(port):
    """One that is no port, and one that is taken."""
    with contextlib.closing(bound(None)) as taken, pytest.raises(UserError, match="PORT="):
        bound(port or taken.getsockname()[1])


def test_the_socket_is_guarded_as_well(serving):
    for more in ({"Origin": "http://evil.example"}, {"Origin": None}, {"token": "x"}, {"Sec-Fetch-Site": "cross-site"}):
        with pytest.raises(InvalidStatus) as refused:
            opened(serving, **more)
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        *("../pyproject.toml", "..%2f..%2fpyproject.toml", "static/main.js", "main.js/../main.js", "%00", "main.js%00"),
        *("sheet/-1.jpg", "sheet/99999.jpg", "sheet/1e3.jpg", "image/23.jpg", "image/x.jpg", "image/0.jpg/../../x"),
        *("seen/0/9.png", "seen/99/0.png", "names/x.json", "export/exe", "__init__.py", "data/tiny/0.jpg"),
        *(f"image/{10**30}.jpg", "export/csv?view=[", "export/csv?view={}", 'export/csv?view={"kind":"like","row":99}'),
    ],
)
def test_no_path_is_served(serving, path):
    status, _, body = ask(serving, path.replace('"', "%22"))
    assert 400 <= status < 500
    assert body.count(b"\n") <= 1
    assert b"Traceback" not in body


def test_what_is_served(serving):
    kinds = {"main.js": "text/javascript", "workbench.css": "text/css", "sheet/0.jpg": "image/jpeg"}
    kinds |= {"image/22.jpg": "image/jpeg", "seen/0/1.png": "image/png", "names/0.json": "application/json"}
    for path, kind in kinds.items():
        status, headers, body = ask(serving, path)
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind), path
        assert body
    assert json.loads(ask(serving, "names/0.json")[2]) == [f"{n}.jpg" for n in range(23)]
    assert json.loads(ask(serving, "names/7.json")[2]) == []
    lines = ask(serving, "export/csv")[2].decode().splitlines()
    assert lines[0] == "path,label,margin,before,flipped,x,y"
    assert len(lines) == 24
    assert lines[1].partition(",")[0].endswith("data/tiny/0.jpg")


def test_parquet_holds_the_same(serving, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    drawn = serving.hub.session
    while not any(np.array_equal(drawn.points, plane.load(path)) for path in drawn.folder.glob("map-*.npy")):
        time.sleep(0.01)  # else the map may come between the two
    (tmp_path / "x.parquet").write_bytes(ask(serving, "export/parquet")[2])
    (tmp_path / "x.csv").write_bytes(ask(serving, "export/csv")[2])
    one, other = pandas.read_parquet(tmp_path / "x.parquet"), pandas.read_csv(tmp_path / "x.csv")
    pandas.testing.assert_frame_equal(one, other, check_dtype=False)


def test_what_is_not_understood_is_refused_in_a_line(serving):
    with opened(serving) as socket:
        said = ["", "[]", "{", "null", '{"do": 3}', "[" * 10_000, '{"do": "format c:"}', '{"do": "edit"}']
        said += ['{"do": "edit", "edits": [{"kind": "member"}]}', '{"do": "edit", "edits": {"a": 1}}', b"\0\1"]
        said += ['{"do": "view", "view": {"kind": "x"}}', '{"do": "view"}', '{"do": "image", "row": -1}']
        said += ['{"do": "image", "row": 1e99}', '{"do": "image", "row": true}', '{"do": "pin", "number": "1"}']
        said += [
            '{"do": "mark", "rows": 5}',
            '{"do": "open", "edits": "zzz"}',
            '{"do": "resolve", "file": "/etc/passwd"}',
        ]
        said += ['{"do": "view", "view": {"kind": "text", "text": "%s"}}' % ("x" * 600)]
        for text in said:
            socket.send(text)
            assert "\n" not in until(socket, "refused")["why"].strip(), text
        say(socket, "hello")
        assert until(socket, "state")["task"]["images"] == 23
    with opened(serving) as socket, pytest.raises(ConnectionClosed):
        socket.send("x" * 3_000_000)
        until(socket, "state")
    with opened(serving) as socket:
        say(socket, "hello")
        assert until(socket, "state")


def test_an_edit_is_told_to_all_tabs_and_none_is_lost(serving):
    with opened(serving) as one, opened(serving) as two:
        for socket in (one, two):
            say(socket, "hello")
            assert until(socket, "state")["numbers"]["flips"]["count"] == 0
        say(one, "edit", edits=[weigh(0.125)])
        say(two, "edit", edits=[{"kind": "set", "key": "threshold", "value": 0.01}])
        for socket in (one, two):
            while (header := until(socket, "state"))["recipe"]["keys"]["threshold"] != 0.01:
                pass
            assert header["recipe"]["members"][0]["weight"] == 0.125
        say(two, "undo")
        say(two, "undo")
        while until(one, "state")["draft"]["changed"]:
            pass


def test_a_hidden_tab_is_sent_nothing_until_it_is_seen_again(serving):
    with opened(serving) as one, opened(serving) as hidden:
        for socket in (one, hidden):
            say(socket, "hello")
            until(socket, "state")
        say(hidden, "sleep")
        while len(serving.hub.awake) == 2:
            time.sleep(0.01)
        for weight in (0.125, 0.375):
            say(one, "edit", edits=[weigh(weight)])
            while until(one, "state")["recipe"]["members"][0]["weight"] != weight:
                pass
        say(hidden, "hello")
        header = until(hidden, "state")
        assert header["recipe"]["members"][0]["weight"] == 0.375
        assert header["task"]["images"] == 23


@pytest.mark.parametrize("submitted", [True, False])
def test_flips_are_shown_first_where_there_is_something_to_flip_from(root, submitted):
    if not submitted:
        shutil.rmtree(root / "submissions")
    with session_of(root) as session, served(session) as serving, opened(serving) as socket:
        say(socket, "hello")
        assert until(socket, "state")["view"]["kind"] == ("flips" if submitted else "uncertain")


def test_edits_of_a_slider_that_pile_up_are_joined():
    from pipeline.workbench.hub import joined

    tab, other = object(), object()
    slide = [(tab, {"do": "edit", "edits": [n], "control": "a"}) for n in range(5)]
    assert joined(slide) == slide[-1:]
    assert joined([slide[0], (other, slide[1][1]), slide[2]]) == [slide[0], (other, slide[1][1]), slide[2]]
    assert joined([slide[0], (tab, {"do": "undo"}), slide[1]]) == [slide[0], (tab, {"do": "undo"}), slide[1]]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGHUP")]


@pytest.mark.parametrize("ending", ["SIGINT", *SLOW])
def test_ctrl_c_ends_it_cleanly_and_keeps_what_is_unsaved(root, tmp_path, ending):
    """And so do a signal to end, and a terminal that is closed; nothing is left behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch)}
    command = [sys.executable, "-m", "pipeline", "workbench", "--competition", "tiny", "--dtype", "fp32"]
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=-1, stderr=-1, text=True)
    try:
        url = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", line) for line in process.stdout)))
        port, token = url.groups()
        address = f"ws://127.0.0.1:{port}/{token}/socket"
        with connect(address, origin=f"http://127.0.0.1:{port}", max_size=None) as socket:
            say(socket, "edit", edits=[weigh(0.25)])
            assert until(socket, "state")["draft"]["changed"] == ["ensembles/both.yaml"]
            assert list(scratch.glob("workbench-*"))
            process.send_signal(signal.Signals[ending])
            said, wrong = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, wrong
    assert wrong == ""
    assert "ended; unsaved and kept for the next time: ensembles/both.yaml" in said
    assert list((root / "cache/tiny/workbench").glob("draft-both-*.json"))
    assert not list(scratch.glob("workbench-*"))
