"""What a service says of the submissions, into the log: by id, else by description and file name, never by guess."""

import pytest

from pipeline.chain.csv_format import CsvFormat
from pipeline.chain.ledger import FIRST_COLUMNS, LOG_COLUMNS, upload_state
from pipeline.core.errors import Damaged
from pipeline.leaderboard.scores import description, file_name, found, take, the_one
from pipeline.leaderboard.services import Entry

from ..conftest import fresh, refused
from .conftest import add, lines

LINE = dict.fromkeys(LOG_COLUMNS, "") | {"number": "1", "recipe": "both", "digest": "0123456789ab"}


def entry(identity: str = "7", state: str = "scored", public: str = "0.5", **more) -> Entry:
    said = {"file_name": file_name(LINE), "description": description(LINE), "time": "2026-11-21T18:00:00+00:00"} | more
    return Entry(identity, state=state, public=public, **said)


def test_all_are_fetched_and_matched_by_description(root, server, verb):
    add(root, 1)
    add(root, 2)
    for number, line in enumerate(lines(root)[:2]):
        server.add(
            description(line), file_name(line), status="COMPLETE", publicScore=f"0.{number}5", privateScore="0.1"
        )
    server.add("by hand", "003-both.csv", status="COMPLETE", publicScore="0.9")  # the file name alone is no match
    server.page = 1  # whatever page size is asked for
    done = verb("scores")
    assert done.returncode == 0, done.stderr
    assert "2 scored; 1 at kaggle that are not in this log" in done.stdout
    first, second, third = lines(root)
    assert (first["public"], second["public"], third["public"]) == ("0.05", "0.15", "")
    assert first["private"] == "0.1" and first["service_id"] and first["uploaded"].startswith("2026-11-21T18:00:11")
    assert not third["uploaded"]
    assert "by hand" not in verb("log").stdout
    assert verb("scores").stdout.count("\n") == 1, "nothing is news any more"


def test_the_id_comes_first():
    mine, other = entry("7", description="edited by hand"), entry("8")
    assert found(LINE | {"service_id": "7"}, [mine, other]) == [mine]
    assert found(LINE | {"service_id": "9"}, [mine, other]) == [other]
    assert found(LINE, [mine]) == []


def test_several_of_one_submission(capsys):
    first, second = entry("7"), entry("8")
    assert the_one(LINE, [second, first]) == first
    assert the_one(LINE, [entry("9", "rejected", ""), first]) == first
    assert the_one(LINE, [entry("9", "rejected", "")]).state == "rejected"
    assert the_one(LINE, [entry("8", public="0.6"), first]) is None
    assert "is there 2 times, with different answers: 8 (0.6), 7 (0.5)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("known", "given", "warned"),
    [("0.92", "0.92024", False), ("0.9202", "0.92024", False), ("0.93", "0.92024", True), ("1", "0.92024", False)],
)
def test_a_score_entered_by_hand_stays(capsys, known, given, warned):
    line = LINE | {"public": known}
    assert take(line, entry(public=given))
    assert (line["public"], line["service_id"], line["scored"]) == (known, "7", "")
    err = capsys.readouterr().err
    assert (f"'make score N=1 PUBLIC={given}' takes the other" in err) == warned
    assert upload_state(line) == "scored"


def test_a_private_score_that_comes_later():
    line = dict(LINE)
    assert take(line, entry()) and not take(line, entry())
    scored = line["scored"]
    assert take(line, entry(private="0.4"))
    assert (line["public"], line["private"], line["scored"]) == ("0.5", "0.4", scored)


def test_no_share_is_no_score(capsys):
    line = dict(LINE)
    take(line, entry(public="17.5"))
    assert line["public"] == "" and "17.5 is no share between 0 and 1" in capsys.readouterr().err
    take(line, entry(public=""))
    assert upload_state(line) == "pending", "scored, and no score shown"


def test_a_log_of_before_is_read_and_grows(root, server, verb):
    path = root / "submissions" / "tiny" / "log.csv"
    old = "1,2026-01-01T00:00:00+00:00,both,{},,,0.5,\n".format(lines(root)[0]["digest"])
    path.write_text(",".join(FIRST_COLUMNS) + "\n" + old)
    assert lines(root)[0]["uploaded"] == "" and verb("log").returncode == 0
    server.add(description(lines(root)[0]), "001-both.csv", status="COMPLETE", publicScore="0.25")
    done = verb("scores")
    assert "public is 0.5 in the log and 0.25 at the service" in done.stderr
    assert path.read_text().startswith(",".join(LOG_COLUMNS) + "\n")
    assert lines(root)[0]["public"] == "0.5"


@pytest.mark.parametrize("column", ["uploaded", "scored"])
def test_times_that_are_none_are_refused(root, column):
    ledger = CsvFormat(fresh(root)).ledger
    ledger.write_log([ledger.log()[0] | {column: "yesterday"}])
    with refused(Damaged, f"{column} 'yesterday'"):
        ledger.log()
