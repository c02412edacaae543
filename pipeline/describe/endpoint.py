"""A chat-completions endpoint: a question in, untrusted text out. The key goes to that address and nowhere else."""

import email.message
import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

from ..core.console import say, warn
from ..core.errors import Forbidden, NotFound, Unavailable, UserError

URL, KEY, MODEL = "PROMPTS_API_URL", "PROMPTS_API_KEY", "PROMPTS_API_MODEL"
PATH = "/chat/completions"
LOCAL = ("localhost", "127.0.0.1", "::1")
TIMEOUT = 120.0  # seconds without a byte, and for all of an answer's body
LARGEST = 1_000_000  # bytes of an answer
PAUSES = (2.0, 5.0, 15.0, 40.0)  # seconds before asking again
LONGEST_PAUSE = 120.0  # of those that an endpoint asks for
SHOWN = 200  # characters of what an endpoint says of an error


class NoAnswer(Unavailable):
    """No answer, or none that can be read; it is worth asking again, after `wait` seconds if it said so."""

    def __init__(self, message: str, wait: float = 0):
        super().__init__(message)
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None: another address would be sent the question, and perhaps the key."""


@dataclass(frozen=True)
class Endpoint:
    """Where questions go, and the model that is asked for; made from the environment."""

    url: str
    model: str
    key: str = field(default="", repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """UserError names what is missing or cannot be meant; values of the key are never shown."""
        url, key, model = (environment.get(name, "").strip() for name in (URL, KEY, MODEL))
        missing = [name for name, value in ((URL, url), (MODEL, model)) if not value]
        if missing:
            raise NotFound(
                f"no {' and no '.join(missing)} in the environment: the address and model of a chat-completions "
                f"endpoint, e.g. export {URL}=http://127.0.0.1:11434/v1; and {KEY}, if it wants one"
            )
        if not all("!" <= char <= "~" for char in key):
            raise UserError(f"{KEY}: holds a space or a character that no key has; it is not shown here")
        made = cls(_address(url), model, key)
        if key and made.url.startswith("http:") and urlsplit(made.url).hostname not in LOCAL:
            warn(f"{URL}: http, so the key is sent to {made.host} unencrypted")
        return made

    @property
    def host(self) -> str:
        """For messages: without path and query, which may hold secrets."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def ask(self, question: str) -> str:
        """The text of an answer. What may pass is asked again after a pause; UserError where it does not."""
        for number, pause in enumerate((*PAUSES, 0.0), 1):
            try:
                return self._text(self._post(question))
            except NoAnswer as error:
                if number > len(PAUSES):
                    raise Unavailable(
                        f"{error} (asked {number} times). What was answered is kept: the same command goes on"
                    ) from None
                pause = min(max(pause, error.wait), LONGEST_PAUSE)
                say("prompts-write", self.host, f"{error}; again in {pause:.0f} s")
                sleep(pause)
        raise AssertionError("the last turn returns or raises")

    def _post(self, question: str) -> bytes:
        content = {"model": self.model, "messages": [{"role": "user", "content": question}]}
        headers = {"Content-Type": "application/json", "User-Agent": "zero-shot-pipeline"}
        request = urllib.request.Request(self.url, json.dumps(content).encode(), headers, method="POST")
        if self.key:
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=TIMEOUT) as answer:
                return _read(answer)
        except urllib.error.HTTPError as error:
            with error:
                self._fail(error)
        except TimeoutError:
            raise NoAnswer(f"{self.host}: no answer within {TIMEOUT:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise Unavailable(f"{self.host}: its certificate is not valid: {reason.verify_message}") from None
            if isinstance(reason, TimeoutError):
                raise NoAnswer(f"{self.host}: no answer within {TIMEOUT:.0f} s") from None
            raise NoAnswer(f"{self.host}: {self._safe(str(reason) or type(reason).__name__)}") from None
        except NoAnswer as error:
            raise NoAnswer(f"{self.host}: {error}") from None
        except UnicodeError:  # a host that cannot be one
            raise UserError(_no_address()) from None

    def _fail(self, error: urllib.error.HTTPError) -> NoReturn:
        """Tell a status in the user's words."""
        status, where = error.code, f"{self.host}: {error.code}"
        if status in (401, 403):
            what = f"{KEY} is not accepted" if self.key else f"it wants a key: export {KEY}=..."
            raise Forbidden(f"{where}: {what}")
        if 300 <= status < 400:
            raise UserError(f"{where}: redirects are not followed, the key would go along; give their end in {URL}")
        said = self._said(error)
        if status in (408, 429) or status >= 500:
            raise NoAnswer(f"{where}{said}", _wait(error.headers))
        if status == 404:
            raise NotFound(f"{where}{said}: is {URL} the address before {PATH}, and {MODEL}={self.model} known there?")
        raise UserError(f"{where}{said}: the question is not accepted; look at {URL} and {MODEL}={self.model}")

    def _said(self, error: urllib.error.HTTPError) -> str:
        """' (what the endpoint says of an error)', '' if that cannot be read."""
        try:
            content = json.loads(_read(error))["error"]
            return f" ({self._safe(str(content['message'] if isinstance(content, dict) else content))})"
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
            return ""

    def _safe(self, text: str) -> str:
        """For a terminal: one line of printable characters, never the key, not too long."""
        line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        if self.key:  # also where what is not printed stood in its middle
            line = re.sub(" ?".join(map(re.escape, self.key)), f"<{KEY}>", line)
        return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."

    def _text(self, body: bytes) -> str:
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise NoAnswer(f"{self.host}: what it answers is no chat completion, or was cut; look at {URL}")
        return text


def _address(url: str) -> str:
    """The whole address of chat completions; UserError for what is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isprintable()
    except ValueError:
        usable = False
    if not usable or " " in url or not url.isascii() or parts.username is not None:
        raise UserError(_no_address())
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH, fragment="").geturl()


def _no_address() -> str:
    return f"{URL}: is no http(s) address such as https://host/v1 (without a name or password in it)"


def _read(answer: Any) -> bytes:
    """The body; UserError for one that is too large or does not end."""
    end, parts, size = monotonic() + TIMEOUT, [], 0
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise NoAnswer(f"an answer of more than {LARGEST:,} bytes")
        if monotonic() > end:
            raise NoAnswer(f"an answer that did not end within {TIMEOUT:.0f} s")
    return b"".join(parts)


def _wait(headers: email.message.Message) -> float:
    """Seconds to wait that the endpoint asks for; 0 if it does not, or in other words."""
    value = headers.get("Retry-After", "").strip()
    return float(value) if value.isascii() and value.isdecimal() and len(value) < 10 else 0.0
