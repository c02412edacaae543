"""moto's S3 server as a process of its own on 127.0.0.1, which fails as a file tells it to.

It needs older versions of what we pin, so it may live in an environment of its own, whose interpreter is MOTO_PYTHON.
"""

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHON = os.environ.get("MOTO_PYTHON", sys.executable)
CUT = 2  # seconds without any answer


@dataclass
class Server:
    folder: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def fault(self, kind: str) -> None:
        (self.folder / "fault").write_text(kind)

    def failed(self) -> int:
        """How many requests were failed on purpose."""
        return (self.folder / "failed").stat().st_size if (self.folder / "failed").exists() else 0


def there() -> bool:
    """Whether moto is installed where it is looked for."""
    return not subprocess.run([PYTHON, "-c", "import moto.server"], stderr=subprocess.DEVNULL).returncode


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server with an empty bucket called `bucket`."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(folder, port)
    process = subprocess.Popen([PYTHON, __file__, str(folder), str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                request = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
                urllib.request.urlopen(request, timeout=5).close()
                break
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()


class Failing:
    """An application whose answers fail as the file `fault` says."""

    def __init__(self, application, folder: Path):
        self.application, self.folder, self.rng, self.since = application, folder, random.Random(0), None

    def __call__(self, environ, start_response):
        path = self.folder / "fault"
        kind = path.read_text() if path.exists() else "none"
        if kind == "slow":
            time.sleep(0.05)
        if kind == "cut":
            self.since = self.since or time.monotonic()
        if (kind == "fail" and self.rng.random() < 0.05) or (self.since and time.monotonic() - self.since < CUT):
            return self._failed(start_response)
        answer = self.application(environ, start_response)
        if kind == "cut" and environ["REQUEST_METHOD"] == "GET" and self.rng.random() < 0.1:
            self._count()
            return [b"".join(answer)[:-1]]  # the connection ends before all that was promised came
        return answer

    def _failed(self, start_response):
        self._count()
        start_response("503 Slow Down", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return [b""]

    def _count(self) -> None:
        with open(self.folder / "failed", "a") as file:
            file.write("x")


def main() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    application = Failing(DomainDispatcherApplication(create_backend_app), Path(sys.argv[1]))
    run_simple("127.0.0.1", int(sys.argv[2]), application, threaded=True)


if __name__ == "__main__":
    main()
