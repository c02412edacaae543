"""make prompts-write against an endpoint on 127.0.0.1: what is written can be read and used, or nothing is written."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import Exists, Forbidden, NotFound, Unavailable, UserError
from pipeline.describe import endpoint
from pipeline.describe import write as writing
from pipeline.recipes import Project
from pipeline.recipes.prompts import load_prompts

from ..conftest import CLASSES, ROOT, failed, refused, write_yaml
from .chat_server import KEY, Reply, Server, asked_for, good


def folder(root):
    return root / "prompts" / "tiny-written"


def prompts(root):
    return load_prompts(folder(root), tuple(CLASSES))


def clean(root) -> bool:
    """Nothing of a set was written, not even for a moment that lasts."""
    return not folder(root).exists() and not list((root / "prompts").glob(".*"))


class TestWhatIsWritten:
    def test_a_set_of_the_classes(self, write, project_root, server):
        done = write("N=7")
        assert done.returncode == 0, done.stderr
        found = prompts(project_root)
        assert [found.prompt_class.count(label) for label in range(3)] == [7, 7, 7]
        assert set(found.templates) == {""}
        assert all("Cats" in prompt or found.prompt_class[n] for n, prompt in enumerate(found.prompts))
        assert not (project_root / "cache" / "tiny" / "prompts-write.json").exists()
        assert "make prompts-rank COMPETITION=tiny PROMPTS=tiny-written" in done.stdout
        assert "prompts: tiny-written" in done.stdout
        assert "21 sentences of 3 classes" in done.stdout

    def test_it_is_ranked_and_used_under_the_strictest_rules(self, write, project_root, command):
        recipe = project_root / "competitions" / "tiny.yaml"
        assert write("N=3").returncode == 0
        ranked = command(
            project_root, *["prompts-rank", "COMPETITION=tiny", "MODEL=vit", "UNLABELLED=1"], "PROMPTS=tiny-written"
        )
        assert ranked.returncode == 0 and "9 prompts" in ranked.stdout, ranked.stderr
        recipe.write_text(recipe.read_text() + "prompts: tiny-written\nrules: {test_set: false, labels: false}\n")
        done = command(project_root, "submit", "COMPETITION=tiny", "ENSEMBLE=one", "DTYPE=fp32")
        assert done.returncode == 0, done.stderr

    def test_what_is_asked(self, write, server):
        write("N=5")
        path, headers, content = server.requests[0]
        assert path == "/v1/chat/completions" and content["model"] == "tiny-talker"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert [asked_for(text) for text in server.questions] == ["Cats"] * 5 + ["dog"] * 5 + ["Big Birds"] * 5
        assert len(set(server.questions)) == 15
        assert "dog, Big Birds" in server.questions[0]

    def test_names_and_aliases_of_the_competitions_set_count(self, write, project_root, server):
        server.answer = lambda question, number: Reply(
            good(question, number).text.replace("Big Birds", "ostrich").replace("dog", "Dogs")
        )
        assert write("N=5").returncode == 0
        assert "ostrich" in prompts(project_root).prompts[-1]

    def test_without_a_prompt_set_classes_have_their_own_names(self, project_root):
        write_yaml(project_root / "competitions" / "bare.yaml", {"images": "data/tiny", "classes": ["a", "b"]})
        assert writing.names_of(Project(project_root), "bare", ["a", "b"]) == {"a": ("a",), "b": ("b",)}

    def test_classes_whose_files_would_have_one_name(self, project_root, server, monkeypatch):
        write_yaml(
            project_root / "competitions" / "twin.yaml", {"images": "data/tiny", "classes": ["A b", "a-B", "no"]}
        )
        writing.write(Project(project_root), "twin", 4)
        found = load_prompts(project_root / "prompts" / "twin-written", ("A b", "a-B", "no"))
        assert [found.prompt_class.count(label) for label in range(3)] == [4, 4, 4]

    def test_a_sentence_of_two_classes_is_of_the_first(self, write, project_root, server):
        both = "The Cats and the dog sit together."
        server.answer = lambda question, number: Reply(f"{both}\n{good(question, number).text}")
        done = write("N=6")
        assert prompts(project_root).prompts.count(both) == 1 and "duplicate" in done.stdout


class TestRefusals:
    def test_an_existing_set_is_not_touched_and_nothing_is_asked(self, write, project_root, server):
        folder(project_root).mkdir()
        (folder(project_root) / "mine.txt").write_text("mine")
        failed(write(), str(folder(project_root).relative_to(project_root)), "nothing is overwritten")
        assert server.questions == [] and [p.name for p in folder(project_root).iterdir()] == ["mine.txt"]

    def test_a_set_that_appears_meanwhile_is_not_touched(self, project_root, server):
        def answer(question, number):
            folder(project_root).mkdir(exist_ok=True)
            return good(question, number)

        server.answer = answer
        with refused(Exists, "tiny-written"):
            writing.write(Project(project_root), "tiny", 3)
        assert list(folder(project_root).iterdir()) == [] and not list((project_root / "prompts").glob(".*"))

    @pytest.mark.parametrize("name", [endpoint.URL, endpoint.MODEL])
    def test_no_address_or_model(self, write, project_root, monkeypatch, name):
        monkeypatch.delenv(name)
        failed(write(), f"no {name} in the environment", "export")
        assert clean(project_root)

    @pytest.mark.parametrize(
        "url",
        ["ftp://h/v1", "h/v1", "http://", "http://u:p4ss@h/v1", "file:///etc/passwd", "http://a b/", "http://h:x/"]
        + ["http://a..b/v1", "http://h\u00e9/v1", "http://[::1/v1"],
    )
    def test_what_is_no_address(self, project_root, server, monkeypatch, url):
        monkeypatch.setenv(endpoint.URL, url)
        with refused(UserError, endpoint.URL) as error:
            writing.write(Project(project_root), "tiny", 3)
        assert "p4ss" not in str(error.value)

    @pytest.mark.parametrize("key", ["two words", "line\nbreak", "caf\u00e9"])
    def test_a_key_that_is_none_is_not_shown(self, project_root, server, monkeypatch, key):
        monkeypatch.setenv(endpoint.KEY, key)
        with refused(UserError, endpoint.KEY) as error:
            writing.write(Project(project_root), "tiny", 3)
        assert key not in str(error.value) and server.questions == []

    def test_too_many_sentences(self, write):
        failed(write("N=501"), "N=501", "500")

    def test_a_second_run_waits_its_turn(self, write, project_root):
        from pipeline.core.files import try_lock

        with try_lock(project_root / "cache" / "tiny" / "prompts-write.lock"):
            failed(write(), "tiny: another run")


class TestEndpoint:
    def test_no_key(self, write, server, monkeypatch):
        monkeypatch.delenv(endpoint.KEY)
        server.answer = lambda question, number: Reply(status=401)
        failed(write(), "401", f"export {endpoint.KEY}")
        assert "Authorization" not in server.requests[0][1]

    def test_a_wrong_key_is_told_at_once_and_not_shown(self, write, server):
        echo = json.dumps({"error": {"message": f"Incorrect key {KEY}"}}).encode()
        server.answer = lambda question, number: Reply(status=401, body=echo)
        failed(write(), "401", f"{endpoint.KEY} is not accepted")
        assert len(server.questions) == 1

    @pytest.mark.parametrize("status", [400, 404, 422])
    def test_what_is_not_accepted_is_told_at_once_without_the_key(self, write, project_root, server, status):
        said = f"no model\x1b[31m for {KEY[:9]}\x00{KEY[9:]} {KEY}" + "x" * 1000
        server.answer = lambda question, number: Reply(status=status, body=json.dumps({"error": said}).encode())
        done = write()
        failed(done, str(status), "no model", f"{endpoint.MODEL}=tiny-talker")
        assert "\x1b" not in done.stderr and KEY[9:] not in done.stderr and len(done.stderr) < 700
        assert len(server.questions) == 1 and clean(project_root)

    def test_busy_then_well(self, write, project_root, server, monkeypatch):
        slept = []
        monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 60.0)
        monkeypatch.setattr(endpoint, "sleep", slept.append)
        server.replies = [Reply(status=429, headers={"Retry-After": "7"}), Reply(status=503)]
        server.replies += [good('Write 3 class "Cats": ', 1), Reply(status=429, headers={"Retry-After": "99999"})]
        done = write("N=5")
        assert done.returncode == 0 and len(prompts(project_root).prompts) == 15
        assert slept[:3] == [7.0, 0.0, 60.0]
        assert "429; again in 7 s" in done.stdout

    @pytest.mark.parametrize(
        ("reply", "part"),
        [
            (Reply(status=500, body=b"<html>oh no</html>"), "500"),
            (Reply(body=b"<html>a proxy's page</html>"), "no chat completion"),
            (Reply(body=b'{"choices": []}'), "no chat completion"),
            (Reply(body=b'{"choices": [{"message": {"content": null}}]}'), "no chat completion"),
            (Reply(body=b'{"choices": [{"message": {"content": [1]}}]}'), "no chat completion"),
            (Reply(body=b"[" * 200_000), "no chat completion"),
            (Reply(body=b"\xff\xfe\x00"), "no chat completion"),
            (Reply(text="A Cats sits there.\n", cut=True), "was cut"),
            (Reply(body=b" " * 10_000_000), "more than 1,000,000 bytes"),
        ],
        ids=["500", "html", "no choice", "null", "no text", "nested", "bytes", "cut", "10 MB"],
    )
    def test_what_stays_wrong_is_an_error_after_some_tries(self, write, project_root, server, reply, part):
        server.answer = lambda question, number: reply
        done = write()
        failed(done, part, "asked 3 times", "the same command goes on")
        assert len(server.questions) == 3 and clean(project_root)

    def test_silence(self, write, project_root, server, monkeypatch):
        monkeypatch.setattr(endpoint, "TIMEOUT", 0.05)
        server.answer = lambda question, number: Reply(silent=0.3)
        failed(write(), "no answer within")
        assert len(server.questions) == 3 and clean(project_root)

    def test_nobody_there(self, project_root, server, monkeypatch):
        server.close()
        with refused(Unavailable, "127.0.0.1:", "refused"):
            writing.write(Project(project_root), "tiny", 3)

    def test_a_redirect_gets_neither_question_nor_key(self, write, server):
        other = Server()
        there = {"Location": f"{other.address}/chat/completions"}
        for status in (301, 302, 307, 308):
            server.answer = lambda question, number, status=status: Reply(status=status, headers=there)
            failed(write(), str(status), "redirects are not followed")
        assert other.requests == []
        other.close()

    def test_the_key_over_plain_http_is_said(self, capsys):
        made = endpoint.Endpoint.of(
            {endpoint.URL: "http://far.example/v1/?k=v", endpoint.MODEL: "m", endpoint.KEY: KEY}
        )
        assert "unencrypted" in capsys.readouterr().err and KEY not in repr(made)
        assert made.url == "http://far.example/v1/chat/completions?k=v" and made.host == "far.example"

    def test_kinds_of_errors(self, project_root, server):
        for status, kind in ((401, Forbidden), (404, NotFound), (400, UserError), (500, Unavailable)):
            server.answer = lambda question, number, status=status: Reply(status=status)
            with refused(kind, str(status)):
                endpoint.Endpoint.of().ask("?")


class TestUntrustedText:
    def test_too_little_that_can_be_used(self, write, project_root, server):
        server.answer = lambda question, number: Reply("I am a **language model**.\nSorry!\nNo animal is here at all.")
        done = write("N=4")
        failed(done, "'Cats': 0 of 4", "markup", "does not name its class", "smaller N")
        assert clean(project_root) and len(server.questions) == 10

    def test_half_is_enough(self, write, project_root, server):
        few = iter(["A one-eyed Cats.", "A two-eyed Cats."])
        server.answer = lambda question, number: (
            Reply(next(few, "")) if asked_for(question) == "Cats" else good(question, number)
        )
        assert write("N=4").returncode == 0
        assert prompts(project_root).prompt_class.count(0) == 2

    @pytest.mark.parametrize(
        "line",
        [
            "Cats: &a [*a, !!python/object:os.system {}].",
            "- - - {Cats: .",
            "%YAML 9.9 --- Cats ... .",
            "'Cats\" said: # no.",
            "? Cats : | > and so on @ `.",
            "!!binary Cats are here.",
            "2026-11-21: Cats, null, ~, yes.",
        ],
    )
    def test_text_that_is_no_yaml(self, project_root, server, line):
        server.answer = lambda question, number: Reply(f"{line}\n{good(question, number).text}")
        writing.write(Project(project_root), "tiny", 3)
        assert prompts(project_root).prompt_class.count(0) == 3

    @given(st.data())
    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_whatever_is_answered_the_set_is_readable_or_not_there(self, project_root, server, data):
        check_any_answer(project_root, server, data)

    @pytest.mark.faults
    @given(st.data())
    @settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_whatever_is_answered_at_length(self, project_root, server, data):
        check_any_answer(project_root, server, data)


HOSTILE = st.sampled_from(
    ["---", "*x", "&x", "!!y", "{", "}", "#", ": ", "- ", "|", "\x85", "\u2028", "\ud834", "\ufffe", "\t", '"']
)
LINES = st.builds(
    lambda parts, name, end: f"{parts[0]} {name} {parts[1]}{end}",
    st.tuples(st.text(max_size=30) | HOSTILE, st.text(max_size=30) | HOSTILE),
    st.sampled_from(["Cats", "dog", "Big Birds", "ostriches"]),
    st.sampled_from([".", "!", ""]),
)
BODIES = st.binary(max_size=50) | st.recursive(st.none() | st.text(max_size=9) | st.integers(), st.lists).map(
    lambda value: json.dumps({"choices": value}).encode()
)
REPLIES = (
    st.lists(LINES, max_size=12).map(lambda lines: Reply("\n".join(lines)))
    | BODIES.map(lambda body: Reply(body=body))
    | st.sampled_from([200, 204, 302, 400, 401, 404, 429, 500, 599]).map(lambda status: Reply("", status=status))
)


def check_any_answer(project_root, server, data) -> None:
    shutil.rmtree(folder(project_root), ignore_errors=True)
    shutil.rmtree(project_root / "cache", ignore_errors=True)
    replies = data.draw(st.lists(REPLIES, min_size=1, max_size=8))
    server.replies, server.answer = [], lambda question, number: replies[number % len(replies)]
    try:
        writing.write(Project(project_root), "tiny", 2)
    except UserError:
        assert clean(project_root)
    else:
        found = prompts(project_root)
        assert all(found.prompt_class.count(label) in (1, 2) for label in range(3)) and not found.near_duplicates


class TestResuming:
    def test_a_run_goes_on_where_one_failed(self, write, project_root, server):
        server.answer = lambda question, number: Reply(status=500) if number > 7 else good(question, number)
        failed(write("N=5"), "500", "the same command goes on")
        assert clean(project_root)
        asked = len(server.questions)
        server.answer = good
        assert write("N=5").returncode == 0
        assert [asked_for(text) for text in server.questions[asked:]] == ["dog"] * 3 + ["Big Birds"] * 5
        assert [prompts(project_root).prompt_class.count(label) for label in range(3)] == [5, 5, 5]

    def test_answers_of_another_model_are_not_mixed_in(self, write, server, monkeypatch):
        server.answer = lambda question, number: Reply(status=500) if number > 7 else good(question, number)
        failed(write("N=5"), "500")
        asked, server.answer = len(server.questions), good
        monkeypatch.setenv(endpoint.MODEL, "other")
        assert write("N=5").returncode == 0 and len(server.questions) - asked == 15

    def test_damaged_progress_is_begun_again(self, write, project_root, server):
        memo = project_root / "cache" / "tiny" / "prompts-write.json"
        server.answer = lambda question, number: Reply(status=500) if number > 7 else good(question, number)
        failed(write("N=5"), "500")
        memo.write_bytes(memo.read_bytes()[:-20])
        asked, server.answer = len(server.questions), good
        assert write("N=5").returncode == 0 and len(server.questions) - asked == 15

    def test_interrupted_in_a_process_of_its_own(self, project_root, server):
        server.answer = lambda question, number: Reply(silent=60) if number > 6 else good(question, number)
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PROMPTS_API_URL": server.address}
        environment |= {"PROMPTS_API_KEY": KEY, "PROMPTS_API_MODEL": "tiny-talker"}
        words = [sys.executable, "-m", "pipeline", "prompts-write", "COMPETITION=tiny", "N=5"]
        running = subprocess.Popen(words, cwd=project_root, env=environment, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while len(server.questions) < 7 and time.monotonic() < until:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
        assert running.returncode == 130 and "interrupted" in told and KEY not in told
        assert clean(project_root)
        asked, server.answer = len(server.questions), good
        writing.write(Project(project_root), "tiny", 5)
        assert len(server.questions) - asked == 9
