"""LAUNCH=ray: what three machines make is what one makes, whoever is killed."""

import contextlib
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from pipeline.chain.main_job import submit
from pipeline.cli.predict import predict
from pipeline.cluster.pool import Pool
from pipeline.core.errors import Damaged, Unavailable, UserError
from pipeline.core.store import Url
from pipeline.recipes.member import Member

from ..conftest import IMAGES, ROOT, fresh, pipeline, refused
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
        def rows(start, stop):
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


@pytest.mark.slow
def test_an_actor_that_always_dies_is_told_of(tmp_path):
    def begin():
        return lambda start, stop: __import__("os")._exit(1)

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
