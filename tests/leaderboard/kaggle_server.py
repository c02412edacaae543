"""Kaggle's side of the official client's protocol on 127.0.0.1, with faults. Nothing here is Kaggle's own.

The unmodified client reaches it as a proxy: KAGGLE_API_ENVIRONMENT=LOCALHOST makes it ask http://localhost, and
http_proxy sends that here. What it asks was read off the client, version 2.2.4.
"""

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "KGAT-very-secret-0123456789abcdef"
SIGNATURE = "signed-0123456789abcdef"  # of the address that the file is put to
STEPS = {
    "security.OAuthService/IntrospectToken": "introspect",
    "competitions.CompetitionApiService/GetSubmissionLimits": "limits",
    "competitions.CompetitionApiService/ListSubmissions": "list",
    "competitions.CompetitionApiService/StartSubmissionUpload": "start",
    "competitions.CompetitionApiService/CreateSubmission": "create",
    "competitions.CompetitionApiService/GetSubmission": "get",
}


@dataclass
class Fault:
    """What goes wrong at a step, the first `times` times.

    kind: 'status' (with `status`, `message` and `headers`), 'body' (with `body`, in the place of a right answer), 'cut
    before' anything was read, 'cut unanswered' (nothing was done), 'cut done' (it was done, and is not answered),
    'cut answer' (in mid-answer), 'silent' (for `seconds`, nothing was done), 'silent done', or 'slow' (answered then).
    """

    kind: str
    status: int = 500
    message: str = "Internal error"
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 30
    times: int = 10**6


class Server:
    """One competition, one user. `submissions` is the truth about what was spent; oldest first."""

    def __init__(self, slug: str = "tiny-scenes"):
        self.slug, self.score, self.answers_after = slug, "0.87500", 1
        self.submissions: list[dict] = []
        self.daily, self.total = 5, None
        self.page = 50
        self.faults: dict[str, Fault] = {}
        self.asked: Counter = Counter()
        self.files: dict[str, bytes] = {}
        self.changed = threading.Lock()
        self.verdict: Callable[[bytes], str] = lambda content: ""  # why a file is rejected
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"server_state": self}))
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def add(self, description: str, file_name: str, **more) -> dict:
        """A submission as the list has it."""
        ref = 48_000_000 + len(self.submissions)
        one = {"ref": ref, "description": description, "fileName": file_name, "status": "PENDING", "looks": 0}
        one |= {"date": f"2026-11-21T18:{len(self.submissions) % 60:02d}:11.123Z", "totalBytes": 1, **more}
        self.submissions.append(one)
        return one

    # ---- the protocol

    def limits(self, asked: dict) -> dict:
        used = len(self.submissions)
        left = self.daily - used if self.total is None else self.total - used
        limits = {"numToday": used, "numTotal": used, "numAllowedNow": max(0, left)}
        return limits | ({} if self.total is None else {"limitedByTotal": True})

    def list(self, asked: dict) -> dict:
        start = (asked.get("page", 1) - 1) * self.page
        newest = self.submissions[::-1][start : start + self.page]
        return {"submissions": [self.seen(one) for one in newest]}

    def get(self, asked: dict) -> dict:
        return self.seen(next(one for one in self.submissions if one["ref"] == asked["ref"]))

    def seen(self, one: dict) -> dict:
        """Scored when it was looked at often enough."""
        one["looks"] += 1
        if one["status"] == "PENDING" and one["looks"] > self.answers_after:
            why = self.verdict(self.files.get(one["fileName"], b""))
            scored = {"status": "COMPLETE", "publicScore": self.score, "privateScore": ""}
            one |= {"status": "ERROR", "errorDescription": why} if why else scored
        return {key: value for key, value in one.items() if key != "looks"}

    def start(self, asked: dict) -> dict:
        address = f"http://localhost/upload/{asked['fileName']}?signature={SIGNATURE}"
        return {"token": asked["fileName"], "createUrl": address}

    def create(self, asked: dict) -> dict:
        assert asked["blobFileTokens"] in self.files, "nothing was put there"
        one = self.add(asked.get("submissionDescription", ""), asked["blobFileTokens"])
        return {"message": "Successfully submitted to Tiny scenes", "ref": one["ref"]}

    def introspect(self, asked: dict) -> dict:
        return {"active": asked.get("token") == TOKEN, "username": "someone" if asked.get("token") == TOKEN else ""}


class Handler(BaseHTTPRequestHandler):
    """One request, with its fault if there is one."""

    server_state: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def do_PUT(self) -> None:  # noqa: N802
        self.step("put")

    def do_POST(self) -> None:  # noqa: N802
        self.step(STEPS.get(urlsplit(self.path).path.removeprefix("/api/v1/"), "unknown"))

    def step(self, name: str) -> None:
        state = self.server_state
        with state.changed:
            state.asked[name] += 1
            fault = state.faults.get(name)
            fault = fault if fault and state.asked[name] <= fault.times else None
        kind = fault.kind if fault else ""
        if kind == "cut before":
            return self.cut()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if kind == "cut unanswered":
            return self.cut()
        if kind.startswith("silent"):
            if kind == "silent done":
                self.done(name, body)
            time.sleep(fault.seconds)
            return self.cut()
        if kind == "status":
            return self.answer(fault.status, {"code": fault.status, "message": fault.message}, fault.headers)
        if kind == "body":
            return self.send(200, fault.body, {})
        if kind == "slow":
            time.sleep(fault.seconds)
        status, answer = self.done(name, body)
        if kind == "cut done":
            return self.cut()
        return self.answer(status, answer, {}, cut=kind == "cut answer")

    def done(self, name: str, body: bytes) -> tuple[int, dict]:
        """Status and answer of a step without a fault."""
        state, where = self.server_state, urlsplit(self.path)
        if name == "put":
            assert parse_qs(where.query) == {"signature": [SIGNATURE]}
            state.files[where.path.rpartition("/")[2]] = body
            return 200, {}
        asked = json.loads(body)
        if name != "introspect" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"code": 401, "message": "Unauthenticated"}
        if asked.get("competitionName", state.slug) != state.slug:
            return 403, {"code": 403, "message": "Permission 'competitions.participate' was denied"}
        with state.changed:
            return 200, getattr(state, name)(asked)

    def answer(self, status: int, answer: dict, headers: dict, cut: bool = False) -> None:
        content = json.dumps(answer).encode()
        self.send(status, content[: len(content) // 2] if cut else content, headers, len(content))
        if cut:
            self.cut()

    def send(self, status: int, content: bytes, headers: dict, length: int | None = None) -> None:
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": str(length or len(content)), **headers}
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def cut(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
