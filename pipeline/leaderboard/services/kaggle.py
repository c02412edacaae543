"""Kaggle, through its official client (extra `kaggle`), which runs in processes of its own: see _kaggle_client.py."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

from ...core.errors import UserError
from ...core.extras import need
from . import Allowance, Busy, Entry, NoAnswer, Refused, State

CLIENT = Path(__file__).with_name("_kaggle_client.py")
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SITE = "https://www.kaggle.com"
LIMIT = 90  # seconds for one call; the client itself waits for ever
SLOWEST = 50_000  # bytes a second of an upload
PAGES = 200  # of submissions, at most
NUMBER = r"-?\d{1,20}(\.\d{0,20})?"
STATES: dict[str, State] = {"PENDING": "pending", "COMPLETE": "scored", "ERROR": "rejected"}
HOW_TO_LOG_IN = (
    f"get a token at {SITE}/settings/api ('Generate New Token') and give it in one of these ways, once: "
    "export KAGGLE_API_TOKEN=...; or save it as ~/.kaggle/access_token; or run 'kaggle auth login' instead. "
    "An older kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY, work as well"
)

OrEmpty = BeforeValidator(lambda value: "" if value is None else value)
Score = Annotated[str, BeforeValidator(lambda value: value if re.fullmatch(NUMBER, str(value)) else "")]


class _Submission(BaseModel):
    """What the client gives for a submission; anything else is no answer."""

    ref: Annotated[int, Field(gt=0)]
    date: Annotated[str, OrEmpty]
    description: Annotated[str, OrEmpty]
    error_description: Annotated[str, OrEmpty]
    file_name: Annotated[str, OrEmpty]
    public_score: Score
    private_score: Score
    status: Literal["PENDING", "COMPLETE", "ERROR"]

    def entry(self) -> Entry:
        state, message = STATES[self.status], " ".join(self.error_description.split())
        scores = (self.public_score, self.private_score) if state == "scored" else ("", "")
        return Entry(str(self.ref), self.file_name, self.description, self.date, state, *scores, message)


class _Limits(BaseModel):
    num_today: Annotated[int, Field(ge=0)]
    num_total: Annotated[int, Field(ge=0)]
    num_allowed_now: Annotated[int, Field(ge=0)]
    limited_by_total: bool


class _Created(BaseModel):
    message: str
    ref: Annotated[int, Field(ge=0)]
    failed: bool  # the file did not get there; the client says so instead of raising
    said: str


class Service:
    """A competition on Kaggle."""

    name = "kaggle"

    def __init__(self, slug: str, where: str):
        if not SLUG.fullmatch(slug):
            raise UserError(f"{where}: {slug!r} is no competition's short name, e.g. kaggle: digit-recognizer")
        need("kaggle", "make upload")
        self.slug, self.where, self.address = slug, where, f"{SITE}/competitions/{slug}"

    def allowance(self) -> Allowance:
        got = self._call(_Limits, "limits")
        return Allowance(got.num_allowed_now, self._in_words(got), got.num_total)

    def _in_words(self, got: _Limits) -> str:
        left, today, total = got.num_allowed_now, got.num_today, got.num_total
        if left:
            return (
                f"{left} left of all {total + left}" if got.limited_by_total else f"{left} of {today + left} left today"
            )
        if not total:
            return f"none allowed: join the competition at {self.address}/rules, if it is open"
        if got.limited_by_total:
            return f"the limit is reached: {total} submitted in all"
        return f"the limit is reached: {today} submitted today; Kaggle's day begins at midnight UTC"

    def upload(self, file: Path, description: str) -> str:
        limit = LIMIT + file.stat().st_size / SLOWEST
        got = self._call(_Created, "submit", str(file.absolute()), description, limit=limit)
        if got.failed:
            raise Refused(f"kaggle: the file was not taken ({got.said or got.message}); nothing was submitted")
        return str(got.ref or "")

    def entries(self) -> Iterator[Entry]:
        seen: set[str] = set()
        for page in range(1, PAGES + 1):
            found = [one.entry() for one in self._call(list[_Submission], "list", page)]
            new = [entry for entry in found if entry.id not in seen]
            if not new:  # the size of a page is Kaggle's affair
                return
            yield from new
            seen |= {entry.id for entry in new}

    def entry(self, id: str) -> Entry:
        return self._call(_Submission, "get", int(id)).entry()

    def _call(self, kind: Any, what: str, *arguments, limit: float | None = None):
        """Run one call in a process of its own, and check that it answers in `kind`."""
        request = json.dumps({"competition": self.slug, "what": what, "arguments": arguments})
        command, limit = [sys.executable, "-P", str(CLIENT)], limit or LIMIT  # -P: not this folder's kaggle.py
        try:
            done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=limit)
            answer = json.loads(done.stdout)
            if "error" in answer:
                self._fail(**answer["error"])
            return TypeAdapter(kind).validate_python(answer["answer"])
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"kaggle: no answer within {limit:.0f} s") from None
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise NoAnswer(f"kaggle: an answer to '{what}' that cannot be understood") from None

    def _fail(self, status: int | None, message: str, wait: float | None, source: str | None) -> NoReturn:
        """Tell an error in the user's words. `status` None: no answer came; 0: there are no credentials."""
        if status is None or status >= 500 or 0 < status < 400:
            raise NoAnswer(f"kaggle: {message}" + (f" ({status})" if status else ""))
        if status == 0 and not source:
            raise Refused(f"kaggle: no credentials: {HOW_TO_LOG_IN}")
        if status in (0, 401):
            which = f"the credentials in {source}" if source else "the credentials"
            raise Refused(f"kaggle: {which} are not accepted (expired or revoked?): {HOW_TO_LOG_IN}")
        if status in (403, 404):
            raise Refused(
                f"kaggle: {message} ({status}): either you have not joined {self.slug} and accepted its rules, at "
                f"{self.address}/rules, or there is no competition of that name: look at {self.where}"
            )
        if status == 429:
            later = f"in {wait:.0f} s" if wait is not None else "in some minutes"
            raise Busy(f"kaggle: too many requests; ask again {later}", 60.0 if wait is None else wait)
        raise Refused(f"kaggle: {message} ({status}). Joined and within the limits? {self.address}/submissions")
