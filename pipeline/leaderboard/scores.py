"""Verb scores: what the service says of the submissions, into the log. Nothing is guessed, nothing is overwritten."""

from collections.abc import Iterable, Sequence

from ..chain.csv_format import CsvFormat
from ..chain.ledger import Ledger, now, upload_state
from ..chain.scores import uploads
from ..chain.task import CompetitionTask
from ..core.console import say, warn
from .services import Entry, service_of


def description(line: dict[str, str]) -> str:
    """What a submission is called there: its number, recipe, and the digest of its content."""
    return f"{int(line['number']):03d} {line['recipe']} {line['digest']}"


def file_name(line: dict[str, str]) -> str:
    """What its file is called."""
    return f"{int(line['number']):03d}-{line['recipe']}.csv"


def found(line: dict[str, str], entries: Sequence[Entry]) -> list[Entry]:
    """The entries that are a submission: the one with its id, else those with its description and file name."""
    by_id = [entry for entry in entries if entry.id == line["service_id"]]
    called = (description(line), file_name(line))
    return by_id or [entry for entry in entries if (entry.description, entry.file_name) == called]


def the_one(line: dict[str, str], entries: Sequence[Entry]) -> Entry | None:
    """The entry that is a submission; None where there is none, or several that say different things."""
    several = found(line, entries)
    kept = [entry for entry in several if entry.state != "rejected"] or several
    if len({(entry.state, entry.public, entry.private) for entry in kept}) > 1:
        ids = ", ".join(f"{entry.id} ({entry.public or entry.state})" for entry in kept)
        warn(f"submission {line['number']} is there {len(kept)} times, with different answers: {ids}; none is taken")
        return None
    return kept[-1] if kept else None  # the first that was sent


def take(line: dict[str, str], entry: Entry) -> bool:
    """Write into a log line what the service says of it; whether that is news. A score that is there already stays."""
    before = dict(line)
    line["service_id"], line["uploaded"] = entry.id, line["uploaded"] or entry.time or now()
    for column in ("public", "private"):
        given, known = getattr(entry, column), line[column]
        if given and not 0 <= float(given) <= 1:
            warn(f"submission {line['number']}: {column} {given} is no share between 0 and 1; it is not recorded")
        elif given and not known:
            line[column] = given
        elif given and not _agree(given, known):
            warn(
                f"submission {line['number']}: {column} is {known} in the log and {given} at the service; the log's "
                f"is kept. 'make score N={line['number']} {column.upper()}={given}' takes the other"
            )
    if entry.state == "rejected" or any(line[column] != before[column] for column in ("public", "private")):
        line["scored"] = line["scored"] or now()
    return line != before


def _agree(given: str, known: str) -> bool:
    """Whether one score is the other, or the other rounded to as many digits as were entered by hand."""
    digits = len(known.partition(".")[2])
    return abs(float(given) - float(known)) <= 0.5 * 10.0**-digits + 1e-12


def told(line: dict[str, str], entry: Entry) -> str:
    """What the service says of a submission, in words."""
    if entry.state == "rejected":
        return f"rejected: {entry.message or 'the service does not say why'}"
    if upload_state(line) == "scored":
        return ", ".join(f"{column} {line[column]}" for column in ("public", "private") if line[column])
    return "no score yet"


def record(ledger: Ledger, entries: Iterable[Entry], service: str) -> list[dict[str, str]]:
    """Write what the service says of all submissions into the log, tell what is new; the log's lines."""
    entries = list(entries)
    with ledger.locked():
        lines, news = ledger.log(), []
        for line in lines:
            entry = the_one(line, entries)
            if entry and take(line, entry):
                news.append((line, entry))
        if news:
            ledger.write_log(lines)
    for line, entry in news:
        say("scores", f"{int(line['number']):03d} {line['recipe']}", f"{told(line, entry)} ({service} {entry.id})")
    return lines


def run(task: CompetitionTask) -> None:
    """Fetch the scores of all submissions of a competition."""
    service, ledger = service_of(task), CsvFormat(task).ledger
    ledger.log()
    entries = list(service.entries())
    lines = record(ledger, entries, service.name)
    other = sum(not any(entry in found(line, entries) for line in lines) for entry in entries)
    unknown = f"; {other} at {service.name} that are not in this log" if other else ""
    say("scores", task.name, f"{uploads(lines)}{unknown}")
