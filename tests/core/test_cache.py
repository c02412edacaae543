"""Artefacts: digests, shards, damage; content digests of files."""

import os
import pickle
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import artefacts, digests
from pipeline.core.artefacts import Artefact
from pipeline.core.digests import FileDigests, digest_of
from pipeline.core.files import atomic_file

IDS = tuple(f"{n}.jpg" for n in range(50))


def artefact(folder: Path, **made_from) -> Artefact:
    return Artefact(folder, {"stage": "test", **made_from}, IDS)


def fill(result: Artefact, start: int, stop: int) -> None:
    result.save(start, stop, rows=torch.arange(start, stop))


def test_digest_depends_on_content_not_on_key_order():
    assert digest_of({"a": 1, "b": [2, 3]}) == digest_of({"b": [2, 3], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert digest_of({"a": 1.0}) != digest_of({"a": "1.0"})


def test_a_file_is_a_plain_dict_that_torch_reads_safely(tmp_path):
    result = artefact(tmp_path)
    fill(result, 0, 50)
    (file,) = result.path.glob("*.pt")
    content = torch.load(file, weights_only=True)
    assert content["ids"] == list(IDS)
    assert content["digest"] == result.digest == result.path.name
    assert torch.equal(content["rows"], torch.arange(50))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 49), st.integers(1, 50)), max_size=4), st.integers(1, 60), st.integers(0, 49))
def test_any_shards_on_disk_are_completed_and_read_back(tmp_path_factory, spans, size, start):
    """Shards of another size, overlapping, with gaps: what is missing is filled, and rows are the rows."""
    result = artefact(tmp_path_factory.mktemp("a"))
    for first, length in spans:
        fill(result, first, min(first + length, 50))
    for first, last in result.missing(size):
        assert first // size == (last - 1) // size, "a gap is cut at multiples of the shard size"
        fill(result, first, last)
    assert result.missing(size) == []
    assert torch.equal(result.rows("rows", start, 50), torch.arange(start, 50))


@pytest.mark.parametrize("damage", ["empty", "half", "pickle", "foreign", "noise"])
def test_a_damaged_shard_is_missing(tmp_path, damage, capsys):
    result, other = artefact(tmp_path), artefact(tmp_path, other=1)
    fill(result, 0, 25)
    fill(result, 25, 50)
    file = sorted(result.path.glob("*.pt"))[1]
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "noise":
        file.write_bytes(os.urandom(5000))
    elif damage == "pickle":
        file.write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    else:
        fill(other, 25, 50)
        os.replace(next(other.path.glob("*.pt")), file)
    assert result.missing(100) == [(25, 50)]
    assert "damaged" in capsys.readouterr().out
    assert not (tmp_path / "executed").exists()


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), atomic_file(path) as temporary:
        temporary.write_text("new")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class TestFileDigests:
    def old_file(self, tmp_path) -> Path:
        path = tmp_path / "image.jpg"
        path.write_bytes(b"content")
        return path

    def digest(self, tmp_path, path) -> str:
        with FileDigests(tmp_path / "memo.json") as known:
            return known.of(path)

    def test_touch_changes_nothing_and_a_write_does(self, tmp_path):
        path = self.old_file(tmp_path)
        first = self.digest(tmp_path, path)
        path.touch()
        assert self.digest(tmp_path, path) == first
        path.write_bytes(b"another")
        assert self.digest(tmp_path, path) != first

    def test_same_size_and_forged_time_is_noticed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(digests, "YOUNG", 0)
        path = self.old_file(tmp_path)
        time.sleep(0.02)
        first, status = self.digest(tmp_path, path), path.stat()
        time.sleep(0.02)
        path.write_bytes(b"CONTENT")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert self.digest(tmp_path, path) != first

    def test_known_files_are_not_read_again(self, tmp_path, monkeypatch):
        monkeypatch.setattr(digests, "YOUNG", 0)
        path = self.old_file(tmp_path)
        time.sleep(0.02)
        first = self.digest(tmp_path, path)
        monkeypatch.setattr("builtins.open", None)
        assert FileDigests(tmp_path / "memo.json").of(path) == first

    def test_a_young_file_is_not_remembered(self, tmp_path):
        path = self.old_file(tmp_path)
        self.digest(tmp_path, path)
        assert not (tmp_path / "memo.json").exists()


def test_what_was_just_made_is_not_read_again_to_end_a_claim(tmp_path, monkeypatch):
    result, read, original = artefact(tmp_path), [], artefacts.load
    monkeypatch.setattr(artefacts, "load", lambda path, *more: read.append(path) or original(path, *more))
    for start, stop, *_ in result.claim(3):
        fill(result, start, stop)
    assert read == []
    assert result.missing(3) == [] and len(read) == len(result.shards())
