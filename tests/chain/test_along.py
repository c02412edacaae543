"""Cheap stages are made together, a shard of each at a time: the same files as one by one, and nothing read again."""

import io
import re
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch

from pipeline.chain import classes, ensemble, features, stage, threshold
from pipeline.chain.main_job import submit
from pipeline.chain.stage import make
from pipeline.core import artefacts, pickling
from pipeline.core.artefacts import Artefact
from pipeline.core.files import try_lock

from ..conftest import IMAGES, fresh, write_yaml

SHARD = 5
CHEAP = ("probs", "ensemble", "threshold")


def task_of(root):
    return fresh(root, shard_rows=SHARD)


@pytest.fixture
def encoded(project_root):
    """The project with the features of both members, and a recipe that has all cheap stages."""
    recipe = {"members": {"vit@tiny": 2, "vit2@tiny": 1}, "threshold": 0.2}
    write_yaml(project_root / "ensembles" / "cut.yaml", recipe)
    task = task_of(project_root)
    for member in ensemble.members(task.project.ensemble("cut")):
        make(features.stage(task, member))
    return project_root


def cheap(root) -> dict[str, bytes]:
    """The files of the cheap stages."""
    found = {kind: (root / "cache" / "tiny" / kind).rglob("*.pt") for kind in CHEAP}
    return {str(file.relative_to(root)): file.read_bytes() for files in found.values() for file in files}


def one_by_one(root) -> dict[str, bytes]:
    """The same made by a target after the other, in a copy; the files are those of the whole run."""
    task = task_of(root)
    recipe = task.project.ensemble("cut")
    for member in ensemble.members(recipe):
        make(ensemble.part(task, recipe, member))
    make(ensemble.stage(task, "cut"))
    make(threshold.stage(task, "cut"))
    return cheap(root)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The kinds of what is read from the cache."""
    seen, read = [], Artefact.read

    def counted(self, *given, **more):
        seen.append(self.folder.parts[-2])
        return read(self, *given, **more)

    monkeypatch.setattr(Artefact, "read", counted)
    return seen


def test_the_same_files_and_labels_as_one_by_one(encoded, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(encoded, other, symlinks=True)
    alone = one_by_one(other)
    assert len(alone) == 4 * -(-IMAGES // SHARD)
    decision = classes.decide(task_of(encoded), "cut")
    assert cheap(encoded) == alone
    again = classes.decide(task_of(other), "cut")
    assert torch.equal(decision.pooled, again.pooled) and torch.equal(decision.refined, again.refined)


def test_what_was_computed_just_now_is_not_read_again(encoded, reads):
    submit(task_of(encoded), "cut")
    shards = -(-IMAGES // SHARD)
    assert reads.count("features") == 2 * shards
    assert reads.count("probs") == 0
    assert reads.count("ensemble") == 1 and reads.count("threshold") == 2, "what the columns are"


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_missing_is_made_as_it_was(encoded, seed):
    first = submit(task_of(encoded), "cut").read_bytes()
    whole = cheap(encoded)
    chosen = torch.rand(len(whole), generator=torch.Generator().manual_seed(seed)) < (seed + 1) / 5
    for name, gone in zip(sorted(whole), chosen.tolist(), strict=True):
        if gone:
            (encoded / name).unlink()
    if seed % 2:  # and no row of the last one: all is needed again
        shutil.rmtree(encoded / "cache" / "tiny" / "threshold")
        shutil.rmtree(encoded / "cache" / "tiny" / "ensemble")
    assert submit(task_of(encoded), "cut").read_bytes() == first
    left = cheap(encoded)
    assert all(whole[name] == content for name, content in left.items())
    assert {name for name in whole if "/threshold/" in name} <= left.keys()
    if seed % 2:
        assert left == whole


def test_each_stage_tells_its_own_time(project_root, monkeypatch, capsys):
    """Encoding is told of by the member it is for, not by the blend that waited for it."""
    rows, clock = features.Encoding.rows, [0.0]

    def slow(self, *given):
        clock[0] += 100
        return rows(self, *given)

    monkeypatch.setattr(features.Encoding, "rows", slow)
    monkeypatch.setattr(stage, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    submit(fresh(project_root), "both")
    said = " ".join(capsys.readouterr().out.split())
    assert re.findall(r"prompts encoded, \d+ reused; ([\d.]+) s", said) == ["100.0", "100.0"]
    assert re.findall(r"ensemble both: .*? images in ([\d.]+) s", said) == ["0.00"]


def test_shards_of_another_size_are_made_along_where_they_are_missing(encoded):
    first = submit(task_of(encoded), "cut").read_bytes()
    for kind in ("ensemble", "threshold"):
        shutil.rmtree(encoded / "cache" / "tiny" / kind)
    file = min((encoded / "cache" / "tiny" / "probs").rglob("*.pt"))
    file.unlink()
    assert submit(fresh(encoded, shard_rows=7), "cut").read_bytes() == first


@pytest.mark.parametrize(
    "recipe",
    [
        {"members": {"vit@tiny": 2, "vit2@tiny": 1}, "match": "confidence"},
        {"members": {"vit@tiny": 1, "vit2@tiny": 1, "vit@tiny-sharp": 1}, "weights": "auto"},
    ],
    ids=["match", "weights"],
)
def test_a_recipe_that_looks_at_all_rows_first_has_them(encoded, recipe):
    recipe = {**recipe, "threshold": 0.2}
    write_yaml(encoded / "ensembles" / "matched.yaml", recipe)
    with open(encoded / "competitions" / "tiny.yaml", "a") as file:
        file.write("\nrules: {test_set: true}\n")
    first = classes.decide(task_of(encoded), "matched").pooled
    assert torch.equal(first, classes.decide(task_of(encoded), "matched").pooled)


def test_rows_that_another_process_computes_are_waited_for(tmp_path):
    result = Artefact(tmp_path / "x", {"stage": "x"}, ("a", "b"))
    result.save(1, 2, values=torch.ones(1))
    waiting, answers = threading.Event(), []

    def claim():
        waiting.set()
        with result.claimed(0, 1) as mine:
            answers.append(mine)

    with try_lock(result.path / "00000000-00000001.lock") as held:
        assert held
        thread = threading.Thread(target=claim)
        thread.start()
        waiting.wait()
        assert not answers
        result.save(0, 1, values=torch.zeros(1))
    thread.join()
    assert answers == [False]


def test_rows_of_a_process_that_died_are_taken_up(tmp_path):
    result = Artefact(tmp_path / "x", {"stage": "x"}, ("a", "b"))
    with result.claimed(0, 1) as mine:
        assert mine
    with result.claimed(0, 1) as mine:
        assert mine, "nothing was saved"


CONTENTS = (
    {"ids": [f"{n}.jpg" for n in range(300)], "probs": torch.rand(7, 3)},
    {"ids": ["ä", "", "x" * 300, "x" * 300], "half": torch.rand(4).half(), "part": torch.rand(9)[2:5]},
    {"nested": [["a", 1.5, None], {"b": torch.arange(3)}], "same": [torch.zeros(2)] * 2},
)


@pytest.mark.parametrize("content", CONTENTS)
def test_files_are_those_that_torch_writes(content):
    ours, theirs = io.BytesIO(), io.BytesIO()
    torch.save(content, ours, pickle_module=pickling)
    torch.save(content, theirs)
    assert ours.getvalue() == theirs.getvalue()


def test_the_cache_writes_so(tmp_path, monkeypatch):
    used, save = [], torch.save
    monkeypatch.setattr(torch, "save", lambda *given, **more: (used.append(more), save(*given, **more)))
    artefacts.save(tmp_path / "x.pt", {"a": 1}, ids=["a"])
    assert used == [{"pickle_module": pickling}]
