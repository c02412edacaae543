"""A chat-completions endpoint on 127.0.0.1 that answers what it is told to, faults included."""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-very-secret-0123456789abcdef"
ADJECTIVES = ("small", "large", "grey", "white", "old", "young", "sleepy", "striped", "spotted", "loud", "wet", "dark")


@dataclass
class Reply:
    """One answer: its text as an endpoint wraps it, or any `body`; `silent` for seconds before, `cut` in its middle."""

    text: str = ""
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    silent: float = 0
    cut: bool = False

    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps({"choices": [{"message": {"role": "assistant", "content": self.text}}]}).encode()


def asked_for(question: str) -> str:
    """The class that a question is about."""
    return re.search(r'class "(.*?)": ', question)[1]


def good(question: str, number: int) -> Reply:
    """As many new sentences as are asked for."""
    wanted, name = int(re.search(r"Write (\d+)", question)[1]), asked_for(question)
    looks = [f"{ADJECTIVES[(number + n) % len(ADJECTIVES)]} ({number}, {n})" for n in range(wanted)]
    return Reply("\n".join(f"{n}. A photograph of the {look} {name} in a field." for n, look in enumerate(looks, 1)))


class Server:
    """Answers by `answer(question, number of the question)`, for which `replies` go first."""

    def __init__(self, answer: Callable[[str, int], Reply] = good):
        self.answer, self.replies = answer, []
        self.questions: list[str] = []
        self.requests: list[tuple[str, dict, dict]] = []  # path, headers, content
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"state": self}))
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class Handler(BaseHTTPRequestHandler):
    state: Server

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question, state = content["messages"][0]["content"], self.state
        state.requests.append((self.path, dict(self.headers), content))
        state.questions.append(question)
        reply = state.replies.pop(0) if state.replies else state.answer(question, len(state.questions))
        time.sleep(reply.silent)
        body = reply.content()
        try:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if reply.cut else body)
        except OSError:  # the client had enough
            self.close_connection = True

    def log_message(self, *args) -> None:
        pass
