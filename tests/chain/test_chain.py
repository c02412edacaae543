"""What the caches promise: nothing stale, nothing lost, no image forward after a prompt edit."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from pipeline import models
from pipeline.chain import classes as chain_classes
from pipeline.chain import features as chain_features
from pipeline.chain import preprocess
from pipeline.chain import probs as chain_probs
from pipeline.chain.main_job import submit
from pipeline.chain.stage import made

from ..conftest import IMAGES, ROOT, failed, fresh, pipeline, write_images, write_yaml


@pytest.fixture
def loads(monkeypatch) -> list[tuple[str, str]]:
    """(model, tower) of every checkpoint that is really loaded."""
    seen, load = [], models.load
    monkeypatch.setattr(
        models,
        "load",
        lambda name, entry, root, tower, *rest: (seen.append((name, tower)), load(name, entry, root, tower, *rest))[1],
    )
    return seen


def edit_prompts(root, **content) -> None:
    write_yaml(root / "prompts" / "tiny" / "cats.yaml", content)


def artefacts(root) -> dict:
    """Every cached shard with its content and time of writing."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (root / "cache").rglob("*.pt")}


def test_a_second_run_computes_nothing(project_root, loads, capsys):
    first = submit(fresh(project_root), "both")
    assert sorted(loads) == [("vit", "image"), ("vit", "text"), ("vit2", "image"), ("vit2", "text")]
    before = artefacts(project_root)
    loads.clear()
    capsys.readouterr()
    assert submit(fresh(project_root), "both") == first
    assert loads == []
    assert artefacts(project_root) == before
    assert "same content as submission 1" in capsys.readouterr().out


def test_a_prompt_edit_loads_only_text_towers_and_encodes_only_new_prompts(project_root, loads, capsys):
    submit(fresh(project_root), "both")
    loads.clear()
    capsys.readouterr()
    edit_prompts(project_root, prompts=["The whiskers", "A kitten on a mat"])
    submit(fresh(project_root), "both")
    assert loads == [("vit", "text"), ("vit2", "text")]
    assert "0 images encoded, 23 reused; 1 prompts encoded, 12 reused" in capsys.readouterr().out


def test_leaving_prompts_out_or_weighing_them_loads_no_model(project_root, loads):
    submit(fresh(project_root), "both")
    loads.clear()
    edit_prompts(project_root)
    submit(fresh(project_root), "both")
    edit_prompts(project_root, prompts=["The whiskers"], weights={"The whiskers": 2.0})
    submit(fresh(project_root), "both")
    members = {"vit": 0.9, "vit2": 0.1}
    write_yaml(project_root / "ensembles" / "both.yaml", {"members": members, "threshold": 0.01, "pooling": "mean"})
    submit(fresh(project_root), "both")
    assert loads == []


def test_undoing_an_edit_is_a_hit(project_root, loads):
    submit(fresh(project_root), "both")
    before = artefacts(project_root)
    original = (project_root / "prompts" / "tiny" / "cats.yaml").read_text()
    edit_prompts(project_root, prompts=["Something else"])
    submit(fresh(project_root), "both")
    (project_root / "prompts" / "tiny" / "cats.yaml").write_text("# a comment changes nothing\n" + original)
    loads.clear()
    submit(fresh(project_root), "both")
    assert loads == []
    after = artefacts(project_root)
    # the text caches have grown; every other file is as it was
    assert all(after[path] == value for path, value in before.items() if "text" not in path.parts)


def test_nothing_stale_is_used(project_root, checkpoints):
    """After any edit the result equals that of a project without a cache."""
    submit(fresh(project_root), "both")
    edit_prompts(project_root, prompts=["The whiskers", "new"])
    write_yaml(
        project_root / "preprocess" / "tiny.yaml", {"size": 32, "ops": [{"resize": "squash"}, {"contrast": 1.5}]}
    )
    write_images(project_root / "data" / "tiny", 5, seed=9)
    edited = chain_classes.decide(fresh(project_root), "both").pooled
    os.rename(project_root / "cache", project_root / "elsewhere")
    again = chain_classes.decide(fresh(project_root), "both").pooled
    torch.testing.assert_close(again, edited, atol=1e-6, rtol=0)  # batches differ


def test_a_damaged_text_cache_is_told_and_made_again(project_root, capsys):
    first = submit(fresh(project_root), "both")
    (file,) = (project_root / "cache" / "text" / "vit").glob("*.pt")
    file.write_bytes(file.read_bytes()[:500])
    edit_prompts(project_root)
    submit(fresh(project_root), "both")
    assert f"{file} is damaged and is computed again" in capsys.readouterr().out
    assert first.exists()


def test_touching_images_recomputes_nothing(project_root, loads):
    submit(fresh(project_root), "both")
    loads.clear()
    for path in (project_root / "data" / "tiny").glob("*.jpg"):
        path.touch()
    submit(fresh(project_root), "both")
    assert loads == []


def test_moved_weights_are_the_same_checkpoint_and_changed_ones_are_not(project_root, checkpoints, loads):
    import shutil

    submit(fresh(project_root), "one")
    loads.clear()
    for name in ("moved", "changed"):
        shutil.copytree(checkpoints / "vit", project_root / name)
    entries = yaml.safe_load((project_root / "models.yaml").read_text())
    entries["vit"]["weights"] = "moved"
    write_yaml(project_root / "models.yaml", entries)
    submit(fresh(project_root), "one")
    assert loads == []
    entries["vit"]["weights"] = "changed"
    write_yaml(project_root / "models.yaml", entries)
    config = project_root / "changed" / "open_clip_config.json"
    config.write_text(config.read_text().replace("0.4", "0.41"))
    submit(fresh(project_root), "one")
    assert loads == [("vit", "image"), ("vit", "text")]


def test_features_survive_the_loss_of_pixels(project_root, loads):
    import shutil

    submit(fresh(project_root), "both")
    shutil.rmtree(project_root / "cache" / "tiny" / "images")
    loads.clear()
    edit_prompts(project_root)
    submit(fresh(project_root), "both")
    assert loads == []
    assert not (project_root / "cache" / "tiny" / "images").exists()


def test_shards_of_another_size_are_reused(project_root, loads):
    chain_probs.of_member(
        fresh(project_root, shard_rows=5), fresh(project_root, shard_rows=5).project.member("vit@tiny")
    )
    folder = chain_features.stage(fresh(project_root), fresh(project_root).project.member("vit@tiny")).path
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"{a:08d}-{min(a + 5, IMAGES):08d}.pt" for a in range(0, IMAGES, 5)
    ]
    loads.clear()
    chain_probs.of_member(
        fresh(project_root, shard_rows=100), fresh(project_root, shard_rows=100).project.member("vit@tiny")
    )
    assert loads == []


def test_what_artefacts_hold(project_root):
    submit(fresh(project_root), "both")
    task = fresh(project_root)
    columns = {"prompts", "prompt_class", "prompt_weight", "class_names"}
    for artefact, keys, name, shape, dtype in [
        (preprocess.stage(task, "tiny"), set(), "pixels", (IMAGES, 3, 32, 32), torch.uint8),
        (chain_features.stage(task, task.project.member("vit@tiny")), set(), "features", (IMAGES, 16), torch.float16),
        (chain_probs.stage(task, task.project.member("vit@tiny")), columns, "probs", (IMAGES, 12), torch.float32),
    ]:
        (file,) = artefact.path.glob("*.pt")
        content = torch.load(file, weights_only=True)
        assert content.keys() == {"ids", "digest", "made_from", name} | keys
        assert (tuple(content[name].shape), content[name].dtype) == (shape, dtype)
        assert content["ids"] == [f"{n}.jpg" for n in range(IMAGES)]
        if keys:
            assert content["prompt_class"].dtype == torch.int64
            assert content["prompt_class"].tolist() == list(task.prompts.prompt_class)
            assert (content["prompts"], content["class_names"]) == (list(task.prompts.prompts), list(task.class_names))


def test_a_recipe_of_another_size_than_the_models_is_refused(project_root, command):
    write_yaml(project_root / "preprocess" / "big.yaml", {"size": 48, "ops": ["resize"]})
    result = command(project_root, "infer", "--competition", "tiny", "--model", "vit", "--preprocess", "big")
    failed(result, "big.yaml", "48", "vit takes 32", " tiny, tiny-sharp")


def test_features_that_are_not_finite_are_refused(project_root, checkpoints, command):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoints / "vit", project_root / "nan")
    file = project_root / "nan" / "open_clip_model.safetensors"
    weights = load_file(file)
    weights["visual.conv1.weight"][0, 0, 0, 0] = torch.nan
    save_file(weights, file)
    write_yaml(project_root / "models.yaml", {"vit": {"family": "open_clip", "weights": "nan", "preprocess": "tiny"}})
    result = command(project_root, "submit", "--competition", "tiny", "--ensemble", "one")
    failed(result, "vit@tiny: features of 0.jpg ")
    assert not (project_root / "submissions").exists()


def start(root, *arguments) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", *arguments, "--competition", "tiny"]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(condition, process, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_goes_on_where_it_was(project_root, stop):
    """Stopped after some shards of 16 images: they stay, untouched, and the end result is that of one run."""
    write_images(project_root / "data" / "tiny", 1500)
    folder = project_root / "cache" / "tiny" / "images" / "tiny"
    process = start(project_root, "preprocess", "--preprocess", "tiny", "--shard", "16")
    wait_for(lambda: len(list(folder.glob("*/*.pt"))) >= 3, process)
    process.send_signal(stop)
    output = process.communicate()[0].decode()
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command again" in output
        assert "Traceback" not in output
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/[0-9]*.pt")}
    assert 3 <= len(kept) < 1500 / 16
    task = fresh(project_root, shard_rows=16)
    result = made(preprocess.stage(task, "tiny"))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    os.rename(project_root / "cache", project_root / "elsewhere")
    whole = made(preprocess.stage(fresh(project_root), "tiny")).rows("pixels", 0, 1500)
    os.rename(project_root / "cache", project_root / "whole")
    os.rename(project_root / "elsewhere", project_root / "cache")
    assert torch.equal(result.rows("pixels", 0, 1500), whole)


@pytest.mark.slow
def test_two_runs_at_once_agree(project_root):
    processes = [start(project_root, "submit", "--shard", "4") for _ in range(3)]
    outputs = [process.communicate()[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert [path.name for path in (project_root / "submissions" / "tiny").glob("*.csv") if path.name != "log.csv"] == [
        "001-both.csv"
    ]


def test_a_full_disk_is_told_and_the_next_run_goes_on(project_root):
    """A real limit on file size stands in for the disk: writes fail half-way."""
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    result = pipeline(project_root, "submit", "--competition", "tiny", preexec_fn=limit)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr
    left = [path for path in (project_root / "cache").rglob("*") if path.suffix in (".pt", ".tmp")]
    small = {"problems", "canaries"}  # what is recorded before pixels and features
    assert all(small & set(path.parts) for path in left)
    assert pipeline(project_root, "submit", "--competition", "tiny").returncode == 0
