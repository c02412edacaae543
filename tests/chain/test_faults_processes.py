"""Many processes with different targets and recipes on one cache, killed at random: they make what one makes."""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from pipeline.cli.clean_cache import LEFTOVER_AGE
from pipeline.core.artefacts import load
from pipeline.core.digests import digest_of

from ..conftest import write_images, write_yaml

PROCESSES, SECONDS, PATIENCE = 8, 60, 120
JOB = ("--competition", "tiny", "--dtype", "fp32", "--shard", "8")
RECIPES = ("both", "one", "loud", "largest", "middle", "mean_text")
TARGETS = [
    *(
        [verb, *JOB, "--ensemble", name]
        for name in RECIPES
        for verb in ("submit", "submit", "ensemble", "threshold", "plan")
    ),
    *(["infer", *JOB, "--model", model] for model in ("vit", "vit2")),
    *(["preprocess", *JOB, "--preprocess", recipe] for recipe in ("tiny", "tiny-sharp")),
    ["infer", *JOB],
    ["log", "--competition", "tiny"],
    ["clean-cache", "--dry"],
    ["models"],
]


def run(root: Path, arguments: list[str]) -> None:
    """One target as its own process runs it; what it says goes to a file named after the process."""
    from pipeline.__main__ import main

    os.chdir(root)
    said = os.open(root / "said" / str(os.getpid()), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os._exit(main(arguments))


@pytest.fixture
def processes():
    """Starts processes by fork from one that has imported everything: many more of them in a minute."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.models.open_clip", "pipeline.chain.main_job", __name__])
    return context.Process


@pytest.fixture
def root(project_root, processes) -> Path:
    write_images(project_root / "data" / "tiny", 60)
    members = {"vit": 0.5, "vit2@tiny-sharp": 0.5}
    for name, recipe in {
        "loud": {"members": {**members, "vit2@tiny": 0.3}, "threshold": 0.1},
        "largest": {"members": members, "pooling": "max"},
        "middle": {"members": {"vit@tiny-sharp": 1}, "pooling": "median"},
        "mean_text": {"members": members, "pooling": "embedding"},
    }.items():
        write_yaml(project_root / "ensembles" / f"{name}.yaml", recipe)
    (project_root / "said").mkdir()
    return project_root


def made(root: Path) -> dict[str, bytes]:
    """Every artefact by its path; every submission by its content (recipes with the same labels share one)."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in (root / "cache").rglob("*.pt")}
    submitted = [path.read_bytes() for path in (root / "submissions" / "tiny").glob("[0-9]*.csv")]
    assert len(set(submitted)) == len(submitted), "the same content twice"
    return found | {f"submission {digest_of({'rows': text.decode()})}": text for text in submitted}


def start_over(root: Path, aside: Path) -> None:
    aside.mkdir(parents=True)
    for folder in ("cache", "submissions"):
        with contextlib.suppress(FileNotFoundError):
            (root / folder).rename(aside / folder)


def everything(root: Path, processes) -> None:
    """All that any target makes, one after another."""
    for target in [["submit", *JOB, "--ensemble", name] for name in RECIPES] + [["infer", *JOB, "--model", "vit2"]]:
        finish(root, [start(root, processes, target)])


def start(root: Path, processes, target: list[str]):
    process = processes(target=run, args=(root, target), name=" ".join(target))
    process.start()
    return process


def finish(root: Path, running: list, killed=frozenset()) -> None:
    """Wait for processes; those that nobody killed must end well, and all of them soon."""
    deadline = time.monotonic() + PATIENCE
    for process in running:
        process.join(max(0.0, deadline - time.monotonic()))
        assert process.exitcode is not None, f"{process.name} hangs: a deadlock"
        said = root / "said" / str(process.pid)
        told = said.read_text() if said.exists() else ""
        assert process.exitcode == (-signal.SIGKILL if process in killed else 0) or not process.exitcode, told
        assert "Traceback" not in told and "damaged" not in told, told


def storm(root: Path, processes, rng: random.Random, seconds: float) -> tuple[int, int]:
    """Keep PROCESSES random targets running and kill one now and then; returns how many ran and were killed."""
    running, killed, ended = [], set(), time.monotonic() + seconds
    while time.monotonic() < ended:
        alive = [process for process in running if process.is_alive()]
        while len(alive) < PROCESSES:
            alive.append(start(root, processes, rng.choice(TARGETS)))
            running.append(alive[-1])
        time.sleep(rng.uniform(0.0, 0.3))
        if rng.random() < 0.5:
            victim = rng.choice(alive)
            victim.kill()
            killed.add(victim)
    finish(root, running, killed)
    return len(running), len(killed)


@pytest.mark.faults
def test_eight_processes_for_a_minute_make_what_one_makes(root, processes, tmp_path):
    """Rounds that each begin with an empty cache, so that there is always something to compute and to fight for."""
    everything(root, processes)
    serial, rng, ended, rounds, runs, kills = made(root), random.Random(0), time.monotonic() + SECONDS, 0, 0, 0
    assert len([name for name in serial if name.startswith("submission")]) >= 3
    while time.monotonic() < ended or rounds < 3 or kills < 10:  # a slow machine takes longer
        start_over(root, tmp_path / f"round{rounds}")
        started, killed = storm(root, processes, rng, rng.uniform(3, 9))
        rounds, runs, kills = rounds + 1, runs + started, kills + killed
        now = made(root)
        assert now.items() <= serial.items(), "whatever is there is what one process makes"
        locks = list((root / "cache").rglob("[0-9]*.lock"))
        everything(root, processes)
        assert made(root) == serial, "and it is completed, past the locks of the killed"
        assert [lock for lock in locks if lock.exists() and not lock.with_suffix(".pt").exists()] == []
        for path in (root / "cache").rglob("*.pt"):
            assert load(path) is not None
    print(f"{rounds} rounds, {runs} processes, {kills} killed")
    for path in (root / "cache").rglob(".*.tmp"):  # of the killed; clean-cache removes them later
        os.utime(path, (0, time.time() - LEFTOVER_AGE - 1))
    finish(root, [start(root, processes, ["clean-cache"])])
    assert list((root / "cache").rglob(".*.tmp")) == []
    assert made(root) == serial
