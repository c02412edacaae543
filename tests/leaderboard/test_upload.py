"""Uploads through the unmodified Kaggle client to a server of our own. The real service was never reached."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.chain.csv_format import CsvFormat
from pipeline.core import extras
from pipeline.leaderboard import upload
from pipeline.leaderboard.services import kaggle

from ..conftest import ROOT, failed, fresh, pipeline
from .conftest import add, lines
from .kaggle_server import SIGNATURE, TOKEN, Fault


def spent(server) -> list[str]:
    return [one["description"] for one in server.submissions]


def test_a_submission_is_uploaded_and_its_score_logged(root, server, verb):
    done = verb("upload")
    assert done.returncode == 0, done.stderr
    assert "5 of 5 left today" in done.stdout
    (one,), (line,) = server.submissions, lines(root)
    assert one["description"] == f"001 both {line['digest']}"
    assert server.files["001-both.csv"] == (root / "submissions" / "tiny" / "001-both.csv").read_bytes()
    assert (line["service_id"], line["public"], line["private"]) == (str(one["ref"]), "0.87500", "")
    assert line["uploaded"] and line["scored"] and "public 0.87500" in done.stdout
    assert "scored" in verb("log").stdout and "uploads: 1 scored" in verb("log").stdout


def test_the_newest_is_uploaded_and_its_difference_told(root, server, verb):
    verb("upload")
    add(root, 1, 2, 3)
    done = verb("upload")
    assert [text[:8] for text in spent(server)] == ["001 both", "002 both"]
    assert "against the best, 001: 3 labels differ, about 1 of the 10 on the public board" in done.stdout
    assert "4 of 5 left today" in done.stdout
    assert "the best is 0.87500, of submission 1" in done.stdout


@pytest.mark.faults
def test_submit_and_upload_in_one(root, server):
    """As users run it: a real process, real models."""
    (root / "submissions" / "tiny" / "001-both.csv").unlink()
    done = pipeline(root, "submit", "--competition", "tiny", "--upload")
    assert done.returncode == 0, done.stderr
    assert spent(server) == [f"002 both {lines(root)[1]['digest']}"]
    again = pipeline(root, "submit", "--competition", "tiny", "--upload")
    assert again.returncode == 1 and "public 0.87500" in again.stderr
    assert len(spent(server)) == 1


def test_the_same_content_is_never_sent_again(root, server, verb):
    verb("upload")
    again = verb("upload", "--n", "1")
    failed(again, "submission 1 ", "public 0.87500")
    folder = root / "submissions" / "tiny"
    (folder / "007-copy.csv").write_bytes((folder / "001-both.csv").read_bytes())
    copy = verb("upload")
    failed(copy, "submission 1 ")
    (folder / "log.csv").unlink()  # as in another clone: what the service says counts
    copy = verb("upload", "--n", "7")
    failed(copy, "kaggle", "'001 both")
    adopted = verb("upload", "--n", "1")
    assert adopted.returncode == 0 and "it is not sent again" in adopted.stdout
    assert len(spent(server)) == 1
    assert next(line for line in lines(root) if line["number"] == "1")["public"] == "0.87500"


def test_a_broken_or_changed_file_is_not_sent(root, server, verb):
    path = root / "submissions" / "tiny" / "001-both.csv"
    content = path.read_text()
    path.write_text(content.replace("\n0,0", "\n0,7"))
    done = verb("upload")
    failed(done, path.name, "{'0': '7'}")
    path.write_text(content.replace("\n0,0", "\n0,1"))
    done = verb("upload")
    failed(done, path.name, "digest")
    path.write_bytes(b"\xff\xfe")
    failed(verb("upload"), path.name, "utf-8")
    assert not server.asked


WORDS = [  # what fails, how, and what is said of it
    ("limits", Fault("status", 403, "Permission 'competitions.participate' was denied"), "joined tiny-scenes and"),
    ("put", Fault("status", 503, "no"), "the file was not taken"),
    ("limits", Fault("status", 429, "slow down", {"Retry-After": "7"}), "too many requests; ask again in 7 s"),
    ("introspect", Fault("status", 401, "Unauthenticated"), "credentials in KAGGLE_API_TOKEN are not accepted"),
    ("list", Fault("body", body=b"<html>Sign in to this network</html>"), "an answer that is no JSON"),
    ("list", Fault("body", body=b'{"submissions": [{"ref": "x"}]}'), "cannot be understood"),
]
MORE_WORDS = [
    ("start", Fault("status", 403, "You must accept this competition's rules"), "must accept this competition's"),
    ("create", Fault("status", 403, "Forbidden"), "https://www.kaggle.com/competitions/tiny-scenes/rules"),
    ("list", Fault("status", 404, "Not found"), "or there is no competition of that name"),
    ("create", Fault("status", 400, "Submission limit reached"), "Submission limit reached (400)"),
    ("put", Fault("status", 400, "no"), "the file was not taken (Could not submit to competition); nothing was"),
    ("create", Fault("status", 429, "slow down", {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}), "again in 2"),
    ("list", Fault("status", 429, "slow down"), "ask again in some minutes"),
    ("list", Fault("status", 401, "Unauthenticated"), "credentials in KAGGLE_API_TOKEN are not accepted"),
    ("limits", Fault("status", 500, "Internal error"), "Internal error (500)"),
    ("list", Fault("body", body=b'{"submissions": [{"ref": -1}]}'), "cannot be understood"),
    ("list", Fault("body", body=b'{"submissions": 7}'), "cannot be understood"),
    ("limits", Fault("body", body=b'{"numAllowedNow": "many"}'), "cannot be understood"),
    ("limits", Fault("body", body=b"[" * 100_000), "cannot be understood"),
]


@pytest.mark.parametrize(
    ("step", "fault", "message"), [*WORDS, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE_WORDS)]
)
def test_errors_in_the_users_words(root, server, verb, step, fault, message):
    server.faults[step] = fault
    done = verb("upload")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert message in done.stderr and done.stderr.startswith("error: ")
    assert not server.submissions and not lines(root)[0]["uploaded"]


def test_no_credentials(root, server, verb, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    done = verb("upload")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    for way in ("kaggle.com/settings/api", "KAGGLE_API_TOKEN", "~/.kaggle/access_token", "kaggle auth login"):
        assert way in done.stderr
    monkeypatch.setenv("KAGGLE_API_TOKEN", "expired")
    assert "credentials in KAGGLE_API_TOKEN are not accepted" in verb("upload").stderr
    assert verb("scores").returncode == 1 and not server.submissions


@pytest.mark.faults
def test_a_token_in_its_file(root, server, verb, monkeypatch, tmp_path):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    (tmp_path / "home" / ".kaggle" / "access_token").write_text(TOKEN + "\n")
    assert verb("upload").returncode == 0


@pytest.mark.faults
def test_the_limit(root, server, verb):
    server.daily = 0
    done = verb("upload")
    assert done.returncode == 1 and "none allowed: join the competition at https://www.kaggle.com" in done.stderr
    server.daily = 1
    server.add("by hand", "x.csv")
    done = verb("upload")
    assert done.returncode == 1 and "the limit is reached: 1 submitted today" in done.stderr
    server.total = 1
    done = verb("upload")
    assert done.returncode == 1 and "1 submitted in all" in done.stderr
    server.total = 3
    assert "2 left of all 3" in verb("upload").stdout and len(server.submissions) == 2


@pytest.mark.faults
def test_a_rejected_file_is_told_and_may_be_sent_again(root, server, verb):
    server.verdict = lambda content: "Evaluation Exception:\n \x1b[31m IDs of the wrong type"
    done = verb("upload")
    assert done.returncode == 1 and done.stderr.startswith("error: kaggle: submission 1 rejected: Evaluation Exception")
    assert "\x1b" not in done.stderr and "IDs of the wrong type" in done.stderr
    assert "uploads: 1 rejected" in verb("log").stdout
    server.verdict = lambda content: ""  # the host mended the metric
    assert verb("upload").returncode == 0
    assert [one["status"] for one in server.submissions] == ["ERROR", "COMPLETE"]
    assert lines(root)[0]["service_id"] == str(server.submissions[1]["ref"])


def test_no_service_and_unknown_ones(project_root, root, server, verb):
    recipe = root / "competitions" / "tiny.yaml"
    before = recipe.read_text()
    for text, parts in (
        ("", ["'leaderboard: {kaggle: slug}'"]),
        ("leaderboard: {kagle: tiny-scenes}\n", ["'kagle'", "Did you mean 'kaggle'?"]),
        ("leaderboard: {kaggle: https://www.kaggle.com/competitions/x}\n", ["'https://www.kaggle.com/competitions/x'"]),
        ("leaderboard: {kaggle: a, evalai: b}\n", ["leaderboard"]),
        ("leaderboard: kaggle\n", ["leaderboard"]),
    ):
        recipe.write_text(before.partition("leaderboard")[0] + text)
        for name in ("upload", "scores"):
            failed(verb(name), "competitions/tiny.yaml", *parts)
    assert not server.asked


def test_an_absent_client_is_told(root, server, verb, monkeypatch):
    monkeypatch.setattr(extras, "pins", lambda extra: (f"no-such-{extra}==1.0",))
    done = verb("upload")
    failed(done, "no-such-kaggle", "Install: ")


def test_nobody_imports_the_client_before_it_is_used():
    modules = "pipeline.leaderboard.upload, pipeline.leaderboard.services.kaggle"
    code = f"import sys, {modules}; assert 'kaggle' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_offline(root, server, verb, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("upload", "scores"):
        done = verb(name)
        failed(done, "kaggle", "Connection refused")
    assert not lines(root)[0]["uploaded"]


# ---- a submission is never spent twice

STEPS = ("introspect", "limits", "list", "start", "put", "create", "get")
CUTS = ("cut before", "cut unanswered", "cut done", "cut answer", "silent", "silent done")


def never_twice(root, server, verb, monkeypatch, step, kind):
    """Whatever the fault, at most one is spent; afterwards the same command ends with exactly one, scored."""
    monkeypatch.setattr(kaggle, "LIMIT", 4)
    server.faults[step] = Fault(kind, seconds=6)
    first = verb("upload")
    assert "Traceback" not in first.stderr and len(server.submissions) <= 1
    assert first.returncode == 0 or len(first.stderr.splitlines()) == 1
    line = lines(root)[0]
    assert line["uploaded"] or not server.submissions, "what may have arrived is marked"
    server.faults.clear()
    monkeypatch.setattr(kaggle, "LIMIT", 90)
    if line["uploaded"] and not line["service_id"] and not server.submissions:
        soon = verb("upload")
        assert soon.returncode == 1 and "looks again, and sends it if it is not there" in soon.stderr
    monkeypatch.setattr(upload, "GRACE", 0)
    again = verb("upload")
    assert len(server.submissions) == 1
    (line,) = lines(root)
    if first.returncode or line["scored"] == "":
        assert again.returncode == 0, again.stderr
    assert lines(root)[0]["public"] == "0.87500"
    assert lines(root)[0]["service_id"] == str(server.submissions[0]["ref"])


def test_a_cut_connection_spends_nothing_twice(root, server, verb, monkeypatch):
    never_twice(root, server, verb, monkeypatch, "create", "cut done")


@pytest.mark.faults
@pytest.mark.parametrize("kind", CUTS)
@pytest.mark.parametrize("step", STEPS)
def test_connections_cut_at_every_point_spend_nothing_twice(root, server, verb, monkeypatch, step, kind):
    never_twice(root, server, verb, monkeypatch, step, kind)


@pytest.mark.faults
def test_a_connection_cut_once_in_mid_upload_is_resumed_by_the_client(root, server, verb):
    server.faults["put"] = Fault("cut unanswered", times=1)
    assert verb("upload").returncode == 0 and len(server.submissions) == 1 and server.asked["put"] == 2


def test_an_unanswered_upload_that_arrived_is_found_in_the_same_run(root, server, verb):
    server.faults["create"] = Fault("cut done")
    done = verb("upload")
    assert done.returncode == 0, done.stderr
    assert "Looking whether it is there" in done.stdout and "it is not sent again" in done.stdout
    assert lines(root)[0]["public"] == "0.87500" and len(server.submissions) == 1


@pytest.mark.faults
def test_wrong_answers_to_the_upload_itself(root, server, verb):
    server.faults["create"] = Fault("body", body=b'{"message": "Successfully submitted"}')  # and nothing is listed
    done = verb("upload")
    failed(done, "submission 1 ", "not certain")
    assert "uploads: 1 unanswered; 'make scores' asks for 1" in verb("log").stdout
    assert "1 unanswered" in verb("scores").stdout


def test_an_empty_list_that_cannot_be_is_no_answer(root, server, verb):
    server.add("by hand", "x.csv")
    server.faults["list"] = Fault("body", body=b'["maintenance"]')
    done = verb("upload")
    failed(done, "it counts 1 submissions")
    assert len(server.submissions) == 1


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["silent", "silent done"])
def test_a_run_killed_in_mid_upload(root, server, verb, monkeypatch, kind):
    server.faults["create"] = Fault(kind, seconds=60)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", "upload", "--competition", "tiny"]
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL) as process:
        while not server.asked["create"]:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    server.faults.clear()
    done = verb("upload")
    if kind == "silent":
        assert done.returncode == 1 and "without an answer so far" in done.stderr
        monkeypatch.setattr(upload, "GRACE", 0)
        done = verb("upload")
    assert done.returncode == 0, done.stderr
    assert len(server.submissions) == 1 and lines(root)[0]["public"] == "0.87500"


@pytest.mark.faults
def test_runs_at_the_same_time_send_one(root, server):
    server.faults["create"] = Fault("slow", seconds=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", "upload", "--competition", "tiny"]
    processes = [
        subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes and set(codes) <= {0, 1}, said
    assert len(server.submissions) == 1
    assert lines(root)[0]["public"] == "0.87500"


@pytest.mark.faults
def test_waiting_ends_and_goes_on_later(root, server, verb):
    server.answers_after = 10**6
    done = verb("upload")
    assert done.returncode == 0 and "not scored yet; 'make scores' fetches its score later" in done.stdout
    assert "uploads: 1 pending; 'make scores' asks for 1" in verb("log").stdout
    server.answers_after = 0
    server.faults["get"] = Fault("status", 429, "slow down", {"Retry-After": "0"}, times=server.asked["get"] + 1)
    again = verb("upload")
    assert again.returncode == 0 and "public 0.87500" in again.stdout and len(server.submissions) == 1


@pytest.mark.faults
def test_scores_that_cannot_be_asked_for_are_left_for_later(root, server, verb):
    server.faults["get"], server.answers_after = Fault("cut before"), 0
    done = verb("upload")
    assert done.returncode == 0 and "'make scores' fetches its score later" in done.stdout
    server.faults.clear()
    assert "public 0.87500" in verb("scores").stdout


# ---- credentials


@pytest.mark.slow
def test_no_credential_is_ever_written_or_said(root, server, verb, monkeypatch, tmp_path):
    """Also not with VERBOSE, with which the client prints its headers, and not when the service repeats them."""
    monkeypatch.setenv("VERBOSE", "1")
    said = []
    for step, fault in (
        ("limits", Fault("status", 403, f"token {TOKEN} is not allowed")),
        ("create", Fault("status", 400, f"Bearer {TOKEN}, http://localhost/upload?signature={SIGNATURE}")),
        ("put", Fault("cut before", times=1)),
        ("create", Fault("body", body=json.dumps({"message": TOKEN, "ref": TOKEN}).encode())),
        ("none", Fault("status")),
    ):
        server.asked.clear()
        server.faults = {step: fault}
        monkeypatch.setattr(upload, "GRACE", 0)
        for name in ("upload", "scores", "log"):
            done = verb(name)
            said.append(done.stdout + done.stderr)
    said.append(json.dumps(CsvFormat(fresh(root)).ledger.made(1)))
    assert lines(root)[0]["public"] == "0.87500" and len(server.submissions) == 1
    written = [path for folder in (root, tmp_path / "home") for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 10
    for secret in (TOKEN, SIGNATURE):
        assert not any(secret in text for text in said)
        assert not [path for path in written if secret.encode() in path.read_bytes()]
