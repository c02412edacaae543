"""Verb upload: a checked submission to the competition's service, and its score into the log.

A submission is never spent twice. That it is being sent is written into the log before it is; what got no answer is
looked for at the service before anything is sent again.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ..chain.csv_format import CsvFormat
from ..chain.ledger import Ledger, content_digest, now, number_of, upload_state
from ..chain.scores import board_of, board_sees
from ..chain.task import CompetitionTask
from ..core.console import progress, say
from ..core.errors import Damaged, Exists, Forbidden, Mismatch, NotFound, Unavailable, prefixed
from . import scores
from .services import Busy, Entry, NoAnswer, Refused, Service, service_of

GRACE = 300  # seconds after which the service lists what reached it
LOOKS = (2, 5, 15)  # seconds to wait before looking for what got no answer
FIRST_PAUSE, LONGEST_PAUSE, PATIENCE = 5.0, 60.0, 1800.0  # seconds between questions for a score, and in all
SILENCES = 5  # questions for a score that get no answer, after which it is left to `make scores`


def run(task: CompetitionTask, number: int | None = None) -> None:
    """Upload submission `number`, or the newest, and wait for its score; one that is there is only waited for."""
    service, form = service_of(task), CsvFormat(task)
    ledger = form.ledger
    path = _path(ledger, number)
    line = _checked(form, path)
    if upload_state(line) != "pending":
        _refuse_known_content(ledger, line)
        _say_what_differs(form, path)
        allowance, entries = service.allowance(), list(service.entries())
        if allowance.used and not entries:
            raise NoAnswer(f"{service.name}: it counts {allowance.used} submissions and lists none; try again later")
        entry = _there(line, entries, service)
        if entry is None:
            if not allowance.left:
                raise Forbidden(f"{service.name}: {allowance.words}")
            say("upload", path.stem, allowance.words)
            entry = _send(service, ledger, path, line)
        _note(ledger, line, entry)
    wait_for_score(service, ledger, line)


def _path(ledger: Ledger, number: int | None) -> Path:
    if number:
        return ledger.path(number)
    files = ledger.files()
    if not files:
        raise NotFound(f"no submissions in {ledger.folder} yet: make submit")
    return files[-1]


def _checked(form: CsvFormat, path: Path) -> dict[str, str]:
    """The log line of a file that is a valid submission and what was logged; UserError else."""
    content = path.read_bytes()
    with prefixed(str(path)):
        try:
            form.check(content.decode())
        except UnicodeDecodeError as error:
            raise Damaged(str(error)) from None
    with form.ledger.locked():
        line = form.ledger.note(path)
    if line["digest"] != content_digest(content):
        raise Mismatch(
            f"{path}: is not the file that was logged (digest {content_digest(content)}, then {line['digest']}); put "
            "that back, or give this one the next free number"
        )
    return line


def _say_what_differs(form: CsvFormat, path: Path) -> None:
    """Against the newest earlier submission and the one with the best public score, as the board can see it."""
    ledger, said, best = form.ledger, form.ledger.read(path), form.ledger.best()
    earlier = [number_of(file) for file in ledger.files() if number_of(file) < number_of(path)]
    for number in sorted({*earlier[-1:], *([int(best["number"])] if best else [])}):
        flips = ledger.flipped(ledger.find(number), said)
        if flips is not None:
            board = board_of(form.task, len(said))
            which = "the best, " if best and int(best["number"]) == number else ""
            say("upload", path.stem, f"against {which}{number:03d}: {board_sees(flips, len(said), board)}")


def _refuse_known_content(ledger: Ledger, line: dict[str, str]) -> None:
    """UserError for content that the service has by the log, or may have under another number."""
    for other in ledger.log():
        state, known = upload_state(other), f"submission {other['number']} has this content and was"
        if other["digest"] != line["digest"] or state in ("", "rejected"):
            continue
        if state == "scored":
            raise Exists(f"{known} uploaded at {other['uploaded']}: public {other['public'] or 'not known'}")
        if other["number"] != line["number"] or state == "pending":
            raise Exists(
                f"{known} sent at {other['uploaded']}, without a score so far: 'make upload N={other['number']}' asks "
                "for it"
            )


def _age(when: str) -> float:
    """Seconds since a time of the log."""
    at = datetime.fromisoformat(when)
    return (datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds()


def _there(line: dict[str, str], entries: list[Entry], service: Service) -> Entry | None:
    """The entry of this submission if the service has it; UserError where it has its content under another name."""
    entries = [entry for entry in entries if entry.state != "rejected"]
    mine = scores.found(line, entries)
    if mine:
        say("upload", scores.description(line), f"{service.name} has it already ({mine[-1].id}); it is not sent again")
        return mine[-1]
    for entry in entries:
        if entry.description.endswith(f" {line['digest']}"):
            score = f"public {entry.public}" if entry.public else entry.state
            raise Exists(f"{service.name} has this content already, as {entry.description!r}: {score}")
    return None


def _send(service: Service, ledger: Ledger, path: Path, line: dict[str, str]) -> Entry:
    """Send a file, once; its entry, or as much of it as is known. What got no answer is looked for."""
    with ledger.locked():
        before = ledger.line(int(line["number"]))
        _refuse_known_content(ledger, before)  # another run may just have sent it
        young = GRACE - _age(before["uploaded"]) if upload_state(before) == "unanswered" else 0
        if young > 0:
            raise Unavailable(
                f"submission {line['number']} was sent at {before['uploaded']} without an answer so far, and "
                f"{service.name} does not list it yet. The same command looks again, and sends it if it is not there "
                f"in {young:.0f} s"
            )
        line |= {"uploaded": now(), "service_id": "", "scored": ""}
        ledger.change(line)
    name = scores.description(line)
    try:
        identity = service.upload(path, name)
        if identity:
            say("upload", path.stem, f"sent to {service.name} as {name!r} ({identity})")
            return Entry(identity, path.name, name, line["uploaded"], "pending")
        why = f"{service.name}: it says that it has it, and not under which id"
    except Refused:
        with ledger.locked():
            line["uploaded"] = ""
            ledger.change(line)
        raise
    except NoAnswer as error:
        why = str(error)
    return _look_for(service, line, why)


def _look_for(service: Service, line: dict[str, str], why: str) -> Entry:
    """The entry of what was sent and not answered; UserError when the service does not list it, or does not answer."""
    say("upload", scores.description(line), f"{why}. Looking whether it is there")
    for pause in LOOKS:
        time.sleep(pause)
        try:
            there = _there(line, list(service.entries()), service)
        except (NoAnswer, Busy) as error:
            why = str(error)
            continue
        if there:
            return there
        why = f"{service.name} does not list it"
    raise Unavailable(
        f"{why}: whether submission {line['number']} arrived is not certain, so it is not sent again now. "
        f"'make upload N={line['number']}' looks for it again, and sends it only if it is not there"
    )


def _note(ledger: Ledger, line: dict[str, str], entry: Entry) -> None:
    with ledger.locked():
        line |= ledger.line(int(line["number"]))
        scores.take(line, entry)
        ledger.change(line)


def pauses() -> Iterator[float]:
    """Seconds between two questions: growing, and together no more than PATIENCE."""
    pause, left = FIRST_PAUSE, PATIENCE
    while left > 0:
        yield pause
        left -= pause
        pause = min(LONGEST_PAUSE, pause * 1.5)


def wait_for_score(service: Service, ledger: Ledger, line: dict[str, str]) -> None:
    """Ask until the submission is scored. UserError when it is rejected; without a score in the end, that is said."""
    name, silent = scores.description(line), 0
    with progress(f"upload {name}: waiting for the score", "question") as bar:
        for pause in pauses():
            try:
                entry = service.entry(line["service_id"])
                silent = 0
                if entry.state != "pending":
                    break
            except Busy as error:
                pause = max(pause, error.wait)
            except NoAnswer as error:
                silent += 1
                if silent == SILENCES:
                    say("upload", name, f"it is there; {error}. 'make scores' fetches its score later")
                    return
            bar.update()
            time.sleep(pause)
        else:
            say("upload", name, "it is there, and not scored yet; 'make scores' fetches its score later")
            return
    _note(ledger, line, entry)
    if entry.state == "rejected":
        raise Forbidden(f"{service.name}: submission {line['number']} {scores.told(line, entry)}")
    best = ledger.best()
    so_far = f"; the best is {best['public']}, of submission {best['number']}" if best else ""
    say("upload", name, f"{scores.told(line, entry)}{so_far}")
