"""Several processes on one cache: launchers, independent runs, kills at random points."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline.chain import features as chain_features
from pipeline.chain import preprocess
from pipeline.chain import probs as chain_probs
from pipeline.core.artefacts import Artefact
from pipeline.core.files import try_lock

from ..conftest import ROOT, fresh, pipeline, write_images

IMAGES = 300
DYING = """import os, pathlib, runpy, signal, time
from pipeline.core.artefacts import Artefact

saved, save, died = [], Artefact.save, pathlib.Path("died")
def dying_save(self, *arguments, **values):
    saved.append(arguments)
    if os.environ["RANK"] == "1" and len(saved) == 5:  # it holds this shard's lock and has computed it
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    while os.environ["RANK"] != "1" and not died.exists():  # or they would do its shards while it starts
        time.sleep(0.05)
    save(self, *arguments, **values)

Artefact.save = dying_save
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""


def contents(root: Path) -> dict[str, bytes]:
    """Every cached shard by its path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "cache").rglob("*.pt")}


def launch(root: Path, processes: int, *launcher: str, script="") -> subprocess.CompletedProcess:
    what = [script] if script else ["-m", "pipeline"]
    command = [*launcher, *what, "infer", "--competition", "tiny", "--shard", "32", "--dtype", "fp32"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=1800)


@pytest.fixture
def many_images(project_root):
    write_images(project_root / "data" / "tiny", IMAGES)
    return project_root


@pytest.fixture
def serial(many_images) -> dict[str, bytes]:
    """What one process makes."""
    assert launch(many_images, 1, sys.executable).returncode == 0
    result = contents(many_images)
    shutil.rmtree(many_images / "cache")
    return result


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_launched_processes_make_what_one_makes(many_images, serial, processes):
    result = launch(many_images, processes, "torchrun", "--nproc_per_node", str(processes))
    assert result.returncode == 0, result.stderr
    assert contents(many_images) == serial
    assert result.stdout.count("infer      vit@tiny: encoding") == 1, "one process speaks"


@pytest.mark.slow
def test_a_dead_rank_leaves_its_shards_to_another_number_of_ranks(many_images, serial):
    """One of three ranks is killed, the launcher stops the others, and two ranks finish what is left."""
    (many_images / "dying.py").write_text(DYING)
    died = launch(many_images, 3, "torchrun", "--nproc_per_node", "3", script="dying.py")
    assert died.returncode != 0 and "SIGKILL" in died.stderr, died.stderr
    assert contents(many_images) != serial
    result = launch(many_images, 2, "torchrun", "--nproc_per_node", "2")
    assert result.returncode == 0, result.stderr
    assert contents(many_images) == serial


@pytest.mark.slow
def test_two_machines(many_images, serial):
    """Two launchers that find each other, as on two nodes: each starts its ranks, together they do the work once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = ["torchrun", "--nnodes", "2", "--nproc_per_node", "1"]
    common += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    with ThreadPoolExecutor(2) as pool:
        nodes = pool.map(lambda node: launch(many_images, 1, *common, "--node_rank", str(node)), range(2))
        results = list(nodes)
    assert [result.returncode for result in results] == [0, 0], results[0].stderr + results[1].stderr
    assert contents(many_images) == serial
    said = [result.stdout.count("infer      vit@tiny: encoding") for result in results]
    assert sorted(said) == [0, 1], "one process of all machines speaks"


@pytest.mark.slow
def test_accelerate_launch(many_images, serial):
    """On a CPU accelerate starts one process; with GPUs it starts them as torchrun does."""
    launcher = (sys.executable, "-m", "pipeline.cli._launch", "launch", "--cpu", "--num_processes", "2")
    result = launch(many_images, 2, *launcher)
    assert result.returncode == 0, result.stderr
    assert contents(many_images) == serial


@pytest.mark.slow
def test_independent_runs_share_the_work(many_images, serial):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline", "infer", "--competition", "tiny", "--shard", "32", "--dtype", "fp32"]
    runs = [
        subprocess.Popen(command, cwd=many_images, env=environment, stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    said = [run.communicate(timeout=1800)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert contents(many_images) == serial
    encoded = [
        int(line.split(": ")[1].split()[0]) for text in said for line in text.splitlines() if "images encoded" in line
    ]
    assert sum(encoded) == 2 * IMAGES, "no shard of either member was encoded twice"


@pytest.mark.slow
def test_fifty_kills_at_random_points_change_nothing(many_images, serial):
    """Each run is killed after a random time; what is on disk is always whole, and the last run completes it."""
    rng, kills = random.Random(0), 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline", "infer", "--competition", "tiny", "--shard", "32", "--dtype", "fp32"]
    while kills < 50:
        run = subprocess.Popen(command, cwd=many_images, env=environment, stdout=subprocess.DEVNULL)
        try:
            run.wait(timeout=rng.uniform(0.5, 5.0))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
        if not run.returncode:  # it was faster than the kill: take something away for the next one
            shutil.rmtree(
                many_images / "cache" / "tiny" / rng.choice(["features", "images", "probs"]), ignore_errors=True
            )
        for path in (many_images / "cache").rglob("[0-9]*.pt"):
            assert torch.load(path, weights_only=True)["digest"] in str(path), path
    shutil.rmtree(many_images / "cache" / "tiny" / "probs", ignore_errors=True)
    result = pipeline(many_images, "infer", "--competition", "tiny", "--shard", "32", "--dtype", "fp32")
    assert result.returncode == 0, result.stderr
    task = fresh(many_images, shard_rows=32)
    for artefact in (
        preprocess.stage(task, "tiny"),
        chain_features.stage(task, task.project.member("vit@tiny")),
        chain_probs.stage(task, task.project.member("vit@tiny")),
    ):
        for file in artefact.path.glob("[0-9]*.pt"):
            assert file.read_bytes() == serial[str(file.relative_to(many_images))], file


def test_a_truncated_newest_shard_is_made_again(many_images):
    """As after a power cut on a file system that loses the end of a file."""
    task = fresh(many_images, shard_rows=32)
    chain_probs.of_member(task, task.project.member("vit@tiny"))
    before = contents(many_images)
    for artefact in (
        chain_features.stage(task, task.project.member("vit@tiny")),
        chain_probs.stage(task, task.project.member("vit@tiny")),
    ):
        newest = max(artefact.path.glob("*.pt"), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes()[:1000])
    result = pipeline(
        many_images, "infer", "--competition", "tiny", "--model", "vit", "--shard", "32", "--dtype", "fp32"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("is damaged and is computed again") == 2
    assert contents(many_images) == before


class TestLocks:
    def test_only_one_holds_it_and_it_leaves_no_file(self, tmp_path):
        with try_lock(tmp_path / "x.lock") as mine, try_lock(tmp_path / "x.lock") as second:
            assert (mine, second) == (True, False)
        assert list(tmp_path.iterdir()) == []

    def test_the_lock_of_a_killed_process_is_free(self, tmp_path):
        code = f"""
import pathlib, time
from pipeline.core.files import try_lock
with try_lock(pathlib.Path({str(tmp_path / "x.lock")!r})) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""
        holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert holder.stdout.readline() == "True\n"
        with try_lock(tmp_path / "x.lock") as mine:
            assert not mine
        holder.kill()
        holder.wait()
        assert (tmp_path / "x.lock").exists(), "it left its file behind"
        with try_lock(tmp_path / "x.lock") as mine:
            assert mine

    def test_ranks_begin_with_different_shards_and_together_make_all(self, tmp_path):
        ids = tuple(map(str, range(10)))
        artefacts = [Artefact(tmp_path, {"a": 1}, ids) for _ in range(3)]
        claims = [artefact.claim(2, rank, 3) for rank, artefact in enumerate(artefacts)]
        assert [next(claim)[:2] for claim in claims] == [(0, 2), (2, 4), (4, 6)]
        for claim in claims:
            claim.close()  # three processes died
        order = []
        for start, stop, left, following in artefacts[0].claim(2, 1, 3):
            order.append((start, stop, left, following))
            artefacts[0].save(start, stop, rows=torch.arange(start, stop))
        assert order == [(2, 4, 10, (8, 10)), (8, 10, 8, None), (4, 6, 6, None), (0, 2, 4, None), (6, 8, 2, None)]

    def test_a_claim_waits_for_work_that_is_under_way_elsewhere(self, tmp_path):
        artefact = Artefact(tmp_path, {"a": 1}, ("0", "1"))
        other = artefact.claim(1)
        assert next(other)[:2] == (0, 1)
        mine = artefact.claim(1)
        assert next(mine)[:2] == (1, 2)
        artefact.save(1, 2, rows=torch.zeros(1))
        began = time.monotonic()
        artefact.save(0, 1, rows=torch.zeros(1))
        assert list(mine) == []
        assert time.monotonic() - began < 5
