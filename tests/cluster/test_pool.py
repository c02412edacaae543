"""LAUNCH=ray: what three machines make is what one makes, whoever is killed."""

import contextlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.chain import classes as chain_classes
from pipeline.chain import labels, suspicions
from pipeline.chain.main_job import submit
from pipeline.chain.stage import Begun, Work, declare
from pipeline.cli.predict import predict
from pipeline.cluster.pool import LOST, Actor, Pool, Queue
from pipeline.core import artefacts
from pipeline.core.console import warn
from pipeline.core.errors import Damaged, Unavailable, UserError
from pipeline.core.store import Url
from pipeline.recipes.member import Member

from ..conftest import IMAGES, ROOT, fresh, pipeline, refused, write_yaml
from ..core import s3_server
from .conftest import machines

SHARDS = 60
KILLS = 10


def test_a_member_survives_a_copy():
    head = Member("head", "plain", Member("tower", "plain"))
    copy = pickle.loads(pickle.dumps(head))
    assert (copy, copy.model, copy.preprocess, copy.base) == (head, "head", "plain", "tower@plain") and copy.is_head


def test_many_machines_write_a_table_of_parts(project_root):
    with refused(UserError, "OUT=x.csv", ".parquet"):
        predict(fresh(project_root, ray="local"), "vit", "data/tiny", "a,b", None, 2, "x.csv")


def test_a_shard_is_expected_by_one_and_taken_by_whoever_is_idle():
    queue = Queue([(number, number + 1) for number in range(6)])
    assert queue.rows == 6
    assert queue.take("a", 2) == ((0, 1), (1, 2))
    assert queue.take("b", 2) == ((2, 3), (3, 4))
    del queue.working["a"]
    assert queue.take("a", 2) == ((1, 2), (4, 5)), "what it expects"
    del queue.working["a"]
    assert queue.take("a", 2) == ((4, 5), (5, 6))
    del queue.working["a"]
    assert queue.take("a", 2) == ((5, 6), None), "b expects what is left"
    del queue.working["a"]
    assert queue.take("a", 2) == ((3, 4), None), "nothing waits for b"
    assert not queue.todo


def test_the_shard_of_a_lost_actor_comes_first_but_not_for_ever():
    queue = Queue([(0, 1), (1, 2), (2, 3)])
    queue.take("a", 1)
    queue.lost("a")
    assert list(queue.todo) == [(0, 1), (1, 2), (2, 3)] and not queue.working and not queue.expected
    with refused(Unavailable, "images 0 to 1"):
        for _ in range(LOST):
            queue.take("a", 1)
            queue.lost("a")


def test_an_actor_begins_the_next_shard_before_it_is_asked_for(project_root):
    asked = []

    class Recorded(Work):
        def expect(self, start, stop):
            asked.append(("expect", start, stop))

        def rows(self, start, stop, advance):
            asked.append(("rows", start, stop))
            return {"features": torch.zeros(stop - start, 2)}

        def close(self):
            asked.append("close")

    task = fresh(project_root)
    stage = declare(task, "x", "y", {}, verb="x", begin=lambda _: Recorded(), streams=True, shared=True)
    begun = Begun(stage, None)
    begun(0, 2, (2, 4))
    begun(2, 4, None)
    begun(0, 2, (4, 6))  # is there already
    begun.close()
    assert asked == [("expect", 2, 4), ("rows", 0, 2), ("rows", 2, 4), "close"]
    assert [shard[:2] for shard in stage.shards()] == [(0, 2), (2, 4)]


def test_warnings_of_actors_are_said_once(capsys):
    actor = Actor()

    def begin():
        warn("the tower differs")
        return lambda start, stop, following: warn(f"image {start} is damaged")

    told = [actor.rows(key, begin, (number, number + 1), None) for number, key in enumerate("aab")]
    assert [warnings for _, warnings in told] == [
        ["the tower differs", "image 0 is damaged"],
        ["image 1 is damaged"],
        ["the tower differs", "image 2 is damaged"],
    ]
    assert capsys.readouterr().err == ""
    pool = Pool("local")
    for one in told:
        pool._heard(*one)
    said = capsys.readouterr().err
    assert said.count("the tower differs") == 1 and said.count("is damaged") == 3


class Here:
    """What a pool does, in this process; shards come in no order."""

    def run(self, what, key, begin, gaps):
        rows = begin()
        for shard in reversed(list(gaps)):
            yield *shard, rows(*shard, None)


@pytest.mark.parametrize("rules", [{}, {"test_set": True}])
def test_labels_that_are_found_where_the_shards_are(project_root, monkeypatch, rules):
    """Equal to those of all class probabilities in one place; with images that have no picture."""
    path = project_root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "damaged_images": "fallback", "rules": rules})
    for number in (4, 9):
        (project_root / "data" / "tiny" / f"{number}.jpg").write_bytes(b"no picture")
    surest_N = chain_classes.decide(fresh(project_root), "one").probs.rows("probs", 0, IMAGES).amax(dim=1)
    much = {"members": {"vit": 1}, "threshold": float(surest_N.median())}
    write_yaml(project_root / "ensembles" / "much.yaml", much)
    for name in ("both", "much"):
        expected = chain_classes.decide(fresh(project_root, shard_rows=4), name)
        task = fresh(project_root, shard_rows=4)
        monkeypatch.setitem(task.facts, ("cluster",), Here())
        monkeypatch.setattr(labels, "cluster", lambda task: task.facts["cluster",])
        found = labels.decide(task, name)
        assert found.labels == expected.labels
        whole = chain_classes.with_picture(task, task.project.ensemble(name))
        assert (found.zero, found.tied) == suspicions.ties(expected.refined[whole])
        assert found.seen == IMAGES - 2 and found.probs.digest == expected.probs.digest
    assert 0 < found.zero < IMAGES - 2, "the second threshold leaves some images nothing"


@pytest.mark.parametrize(
    ("recipe", "competition", "ray", "enough"),
    [
        ({}, {}, "local", True),
        ({}, {}, None, False),
        ({"refine": ["prior"]}, {}, "local", False),
        ({}, {"columns": {"id": "stem", "{class_name}": "probability"}}, "local", False),
        ({}, {"top": 2}, "local", False),
        ({}, {"also": {"top": 2}}, "local", False),
        ({}, {"also": {"probabilities": True}}, "local", False),
    ],
)
def test_when_labels_are_enough(project_root, recipe, competition, ray, enough):
    path = project_root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), **competition})
    write_yaml(project_root / "ensembles" / "x.yaml", {"members": {"vit": 1}, **recipe})
    assert labels.suffice(fresh(project_root, ray=ray), "x") is enough


def written(root) -> dict[str, bytes]:
    """The shards below cache/ but for the pixels, by name."""
    return {
        str(path.relative_to(root / "cache")): path.read_bytes()
        for path in sorted((root / "cache").rglob("*.pt"))
        if path.parent.parent.parent.name != "images" and "canaries" not in path.parts
    }


@pytest.mark.slow
def test_three_machines_make_what_one_makes(project_root, tmp_path):
    pytest.importorskip("pyarrow")
    expected = submit(fresh(project_root, shard_rows=4), "both").read_bytes()
    shards = written(project_root)
    table = predict(fresh(project_root, shard_rows=4), "vit", "data/tiny", "cat,dog", None, 2, "one.parquet")
    shutil.rmtree(project_root / "cache")
    shutil.rmtree(project_root / "submissions")
    with machines() as three:
        settings = {"shard_rows": 4, "ray": three.address}
        assert submit(fresh(project_root, **settings), "both").read_bytes() == expected
        assert written(project_root) == shards
        spread = predict(fresh(project_root, **settings), "vit", "data/tiny", "cat,dog", None, 2, "three.parquet")
        assert [path.name for path in sorted(spread.iterdir())] == [path.name for path in sorted(table.iterdir())]
        assert all((table / path.name).read_bytes() == path.read_bytes() for path in spread.iterdir())

        shutil.rmtree(project_root / "cache")
        (project_root / "data" / "tiny" / "4.jpg").write_bytes(b"damaged")
        with refused(Damaged, "4.jpg"):
            submit(fresh(project_root, **settings), "both")


def slow_shards(folder, seconds=0.3):
    """What an actor begins: each shard takes a while, and leaves a line in a file of its own when it is begun."""

    def begin():
        def rows(start, stop, following):
            with open(folder / str(start), "a") as file:
                file.write("x")
            time.sleep(seconds)
            return start * start

        return rows

    return begin


@pytest.mark.faults
def test_machines_are_killed_at_ten_random_moments(tmp_path):
    """Nothing is lost, and at most one shard per kill is begun twice."""
    rng, kills, found = random.Random(0), 0, {}
    with machines() as three:
        shards = [(number, number + 1) for number in range(SHARDS)]
        for start, _, told in Pool(three.address).run("kills", "k", slow_shards(tmp_path), shards):
            found[start] = told
            if kills < KILLS and rng.random() < 0.4:
                time.sleep(rng.uniform(0, 0.3))  # the others are somewhere in a shard
                three.kill()
                kills += 1
    assert kills == KILLS
    assert found == {start: start * start for start in range(SHARDS)}
    begun = Counter({path.name: len(path.read_text()) for path in tmp_path.iterdir()})
    assert begun.total() - SHARDS <= KILLS, begun


@pytest.mark.faults
def test_a_killed_driver_is_gone_on_with(project_root):
    expected = submit(fresh(project_root, shard_rows=1), "both").read_bytes()
    shards = written(project_root)
    shutil.rmtree(project_root / "cache")
    shutil.rmtree(project_root / "submissions")
    rng = random.Random(1)
    with machines() as three:
        command = [sys.executable, "-m", "pipeline", "submit", "COMPETITION=tiny", "ENSEMBLE=both", "SHARD=1"]
        command += ["DTYPE=fp32", f"RAY={three.address}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for _ in range(3):
            run = subprocess.Popen(command, cwd=project_root, env=environment, stdout=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(timeout=rng.uniform(10, 25))
            run.send_signal(signal.SIGKILL)
            run.wait()
        last = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, timeout=900)
        assert last.returncode == 0, last.stderr
    assert (project_root / "submissions" / "tiny" / "001-both.csv").read_bytes() == expected
    assert written(project_root) == shards


HOLDS = """
import os, pathlib, time

replace, folder = os.replace, pathlib.Path(os.environ["HELD_IN"])


def held(source, target, **more):
    if "/features/" in str(target) and "00000020-" in str(target):
        (folder / "reached").touch()
        while not (folder / "go").exists():
            time.sleep(0.05)
    return replace(source, target, **more)


os.replace = held
"""


def with_mark(mark: str) -> list[str]:
    """The command lines of all processes that have `mark` in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if folder.name.isdecimal() and mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def waited_for(what, seconds: float = 900) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_run_on_this_machine_that_is_stopped_is_gone_on_with(project_root, tmp_path, kind):
    """By Ctrl-C, which all processes of a terminal hear, or by a kill of the driver: no process stays, nor is lost."""
    pytest.importorskip("ray")
    expected = submit(fresh(project_root, shard_rows=1), "both").read_bytes()
    shards = written(project_root)
    shutil.rmtree(project_root / "cache")
    shutil.rmtree(project_root / "submissions")
    held, code = tmp_path / "held", tmp_path / "code"
    held.mkdir()
    code.mkdir()
    (code / "sitecustomize.py").write_text(HOLDS)  # one shard is not finished until it may
    command = [sys.executable, "-m", "pipeline", "submit", "COMPETITION=tiny", "SHARD=1", "DTYPE=fp32", "RAY=local"]
    environment = {**os.environ, "PYTHONPATH": f"{code}:{ROOT}", "HELD_IN": str(held)}
    run = subprocess.Popen(
        command,
        cwd=project_root,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )
    assert waited_for((held / "reached").exists)
    (os.killpg if kind == signal.SIGINT else os.kill)(run.pid, kind)
    said = run.communicate(timeout=900)[1]
    if kind == signal.SIGINT:
        assert run.returncode == 130 and "interrupted: finished shards are kept" in said and "Traceback" not in said
    assert waited_for(lambda: not with_mark(str(held))), with_mark(str(held))
    before = {path: path.stat().st_mtime_ns for path in (project_root / "cache").rglob("*/features/**/*.pt")}
    assert before and not any("00000020-" in path.name for path in before)
    (held / "go").touch()
    again = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before, "none is computed again"
    assert (project_root / "submissions" / "tiny" / "001-both.csv").read_bytes() == expected
    assert written(project_root) == shards
    assert waited_for(lambda: not with_mark(str(held))), with_mark(str(held))


@pytest.mark.slow
def test_damaged_images_are_told_of_once(project_root):
    """An image whose end is missing is used as far as it goes: the driver says it, whoever decoded it."""
    pytest.importorskip("ray")
    recipe = project_root / "competitions" / "tiny.yaml"
    recipe.write_text(recipe.read_text() + "damaged_images: fill\n")
    image = project_root / "data" / "tiny" / "4.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    known = submit(fresh(project_root, shard_rows=4), "both").read_bytes()
    shutil.rmtree(project_root / "submissions")
    # what the towers gave first is something else: each actor that loads one finds that out
    for path in (project_root / "cache" / "canaries").rglob("image-*.pt"):
        canary = torch.load(path)
        made = json.loads(canary.pop("made_from"))
        del canary["digest"]
        artefacts.save(path, made, features=-canary["features"])
    shutil.rmtree(project_root / "cache" / "tiny")
    given = ["submit", "COMPETITION=tiny", "SHARD=4", "DTYPE=fp32", "RAY=local", "WORKERS=1"]
    result = pipeline(project_root, *given)
    assert result.returncode == 3, result.stderr
    assert result.stderr.count("4.jpg") == 1 and result.stderr.count("1 of 23 images are damaged") == 1
    assert result.stderr.count("vit: its image tower gives other features") == 1
    assert result.stderr.count("vit2: its image tower gives other features") == 1
    assert (project_root / "submissions" / "tiny" / "001-both.csv").read_bytes() == known


@pytest.mark.slow
def test_an_actor_that_always_dies_is_told_of(tmp_path):
    def begin():
        return lambda start, stop, following: __import__("os")._exit(1)

    with machines(1) as one, refused(Unavailable, "images 0 to 1"):
        list(Pool(one.address).run("dies", "d", begin, [(0, 1)]))


@pytest.mark.slow
def test_no_cluster_there():
    pytest.importorskip("ray")
    with refused(Unavailable, "RAY=127.0.0.1:1"):
        list(Pool("127.0.0.1:1").run("x", "x", lambda: None, [(0, 1)]))


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["fail", "slow", "cut"])
def test_three_machines_and_a_store_that_fails(project_root, tmp_path, monkeypatch, fault):
    """Images and caches in S3, of which 5 % of the requests fail, or all are slow, or it is cut: the same labels."""
    if not s3_server.there():
        pytest.skip("no S3 server: MOTO_PYTHON names no interpreter that has moto[server]")
    pytest.importorskip("obstore")
    expected = submit(fresh(project_root, shard_rows=4), "both").read_bytes()
    shutil.rmtree(project_root / "cache")
    shutil.rmtree(project_root / "submissions")
    with s3_server.running(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for path in (project_root / "data" / "tiny").iterdir():
            (Url("s3://bucket/images") / path.name).write_bytes(path.read_bytes())
        server.fault(fault)
        with machines() as three:
            given = ["DATA=s3://bucket/images", "CACHE=s3://bucket/cache", "SHARD=4", "DTYPE=fp32", "ENSEMBLE=both"]
            result = pipeline(project_root, "submit", "COMPETITION=tiny", *given, f"RAY={three.address}")
            assert result.returncode == 0, result.stdout + result.stderr
            assert f"{IMAGES} images in" in result.stdout
            assert (project_root / "submissions" / "tiny" / "001-both.csv").read_bytes() == expected
        assert fault == "slow" or server.failed() > 0
    assert not list((project_root / "cache" / "tiny" / "images").rglob("*.pt")), "actors keep no pixels"
