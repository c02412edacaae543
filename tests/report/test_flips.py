"""Flips with pictures: the page and the CSV of make diff, and a report, show the images that changed."""

import json
import re

import pytest

from pipeline.__main__ import main
from pipeline.chain.main_job import submit
from pipeline.chain.predicted import Predicted
from pipeline.core.tables import csv_text
from pipeline.report import collect, flips, submission

from ..conftest import CLASSES, fresh
from .test_report import solve


@pytest.fixture
def two(project_root):
    """Two submissions; {id: (class before, class after)} of the images that flipped, told by their files alone."""
    paths = [submit(fresh(project_root), name) for name in ("both", "one")]
    before, after = (Predicted("id_idx", "label").read(path) for path in paths)
    moved = {i: tuple(CLASSES[int(said[i])] for said in (before, after)) for i in before if before[i] != after[i]}
    assert moved, "no flips at all would prove nothing"
    return project_root, moved


def pairs(page: str) -> dict[tuple[str, str], int]:
    """What the headings over the pictures say."""
    found = re.findall(r"<h3>(.+) → (.+): (\d+)</h3>", page)
    return {(before, after): int(count) for before, after, count in found}


def names(page: str) -> set[str]:
    return set(re.findall(r"<small title=\"[^\"]*\">([^<]+)</small>", page))


def counted(moved: dict) -> dict[tuple[str, str], int]:
    return {pair: list(moved.values()).count(pair) for pair in moved.values()}


def test_diff_names_and_shows_every_flip_by_pair_of_classes(two, monkeypatch, capsys):
    root, moved = two
    monkeypatch.chdir(root)
    assert main(["diff", "--competition", "tiny"]) == 0
    said = capsys.readouterr().out
    assert f"{len(moved)} of 23 labels flipped from 1 to 2" in said
    page = (root / "reports" / "tiny" / "diff-001-002.html").read_text()
    assert pairs(page) == counted(moved)
    assert names(page) == {f"{i}.jpg" for i in moved}
    lines = (root / "reports" / "tiny" / "diff-001-002.csv").read_text().splitlines()
    assert lines[0] == "image,before,after"
    told = {i: (CLASSES[int(a)], CLASSES[int(b)]) for i, a, b in (line.split(",") for line in lines[1:])}
    assert told == moved
    commonest = max(counted(moved).values())
    row = next(line for line in said.splitlines() if f"  {commonest}" in line)
    assert any(re.search(rf"\b{i}\b", row) for i in moved)


def test_the_newest_two_unless_told(two, monkeypatch, capsys):
    root, _ = two
    (root / "submissions" / "tiny" / "002-one.json").write_text(json.dumps({}))
    (root / "submissions" / "tiny" / "003-x.csv").write_text(
        csv_text(("id_idx", "label"), [[str(n), "0"] for n in range(23)])
    )
    ledger = fresh(root)
    from pipeline.chain.csv_format import CsvFormat

    ledger = CsvFormat(ledger).ledger
    assert ledger.two(None, None) == (2, 3)
    assert ledger.two(1, None) == (1, 3)
    assert ledger.two(3, None) == (3, 2)
    assert ledger.two(None, 2) == (1, 2)
    assert ledger.two(3, 1) == (3, 1)
    monkeypatch.chdir(root)
    for path in (root / "submissions" / "tiny").glob("00[23]*"):
        path.unlink()
    assert main(["diff", "--competition", "tiny"]) == 1
    assert "two are compared" in capsys.readouterr().err


def test_without_the_images_the_words_remain(two, monkeypatch, capsys):
    root, moved = two
    (root / "data" / "tiny").rename(root / "away")
    monkeypatch.chdir(root)
    assert main(["diff", "--competition", "tiny"]) == 0
    said = capsys.readouterr().out
    assert f"{len(moved)} of 23 labels flipped" in said and "no pictures: " in said


def test_a_report_shows_them_and_with_a_solution_which_are_better(two):
    root, moved = two
    solve(root)
    page = submission.write(fresh(root), 2, None).read_text()
    assert pairs(page) == counted(moved)
    truth = {str(n): CLASSES[n % 3] for n in range(23)}
    better = sum(after == truth[i] for i, (_, after) in moved.items())
    worse = sum(before == truth[i] for i, (before, _) in moved.items())
    known = collect.of_submission(fresh(root), 2)
    (change,) = known.changes
    shown = {value: remark for value, _, remark in flips.cards(known, change)}
    assert shown[f"{better - worse:+,}"] == f"{better:,} better, {worse:,} worse"
    tiles = [tile for block in flips.of_change(known, change).blocks[1:] for tile in block.tiles]
    assert sum(tile.state == "right" for tile in tiles) == better
    assert sum(tile.state == "wrong" for tile in tiles) == worse


def test_many_flips_give_a_page_of_bounded_size(two):
    root, _ = two
    known = collect.labels_of(fresh(root), 2)[1]
    (change,) = known.changes
    most = flips.MOST, flips.EACH
    try:
        flips.MOST, flips.EACH = 3, 2
        section = flips.of_change(known, change)
    finally:
        flips.MOST, flips.EACH = most
    tiles = [len(block.tiles) for block in section.blocks[1:]]
    assert sum(tiles) == min(3, change.flipped) and max(tiles) <= 2
    assert sum(int(row[2].value) for row in section.blocks[0].rows) == change.flipped
