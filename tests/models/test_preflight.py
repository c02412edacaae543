"""Preflight: refusals before a download or a load, the hub's cache and its errors, batches that do not fit."""

import os

import pytest
import torch

from pipeline import models
from pipeline.chain import features as chain_features
from pipeline.core.errors import Unavailable
from pipeline.models import _preflight, hub
from pipeline.models._placement import size_of
from pipeline.recipes import ModelEntry

from ..conftest import IMAGES, fresh, refused
from ..models.test_open_clip import KINDS, create, entry
from ..tiny import local_dir
from .conftest import COMMIT, in_cache

CPU = torch.device("cpu")


def test_a_download_that_does_not_fit_is_refused_before_it_starts(tmp_path):
    folder = tmp_path / "not" / "there" / "yet"
    _preflight.disk("m", folder, 1000, "HF_HOME=folder")
    with refused(Unavailable, "model m", "1000000.0 GB", str(folder), " free", "HF_HOME=folder"):
        _preflight.disk("m", folder, 1e15, "HF_HOME=folder")
    assert not folder.exists()


def test_a_model_that_does_not_fit_into_memory_is_refused():
    _preflight.memory("m", 1000, CPU, "fp32")
    with refused(Unavailable, "model m", "1050000.0 GB", "cpu", " free"):
        _preflight.memory("m", 1e15, CPU, "fp32")
    just = 1.2 * _preflight.free_memory()
    with refused(Unavailable, "half of it with DTYPE=fp16 or bf16"):
        _preflight.memory("m", just, CPU, "fp32")
    with refused(Unavailable, "cpu", " free"):
        _preflight.memory("m", just, CPU, "bf16")


def test_free_memory_is_that_of_this_machine():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0.001 * total < _preflight.free_memory() <= total


def test_the_refusal_comes_before_the_weights_are_read(tmp_path, monkeypatch):
    folder = local_dir(tmp_path / "m", KINDS["clip"], create(KINDS["clip"]))
    (folder / "open_clip_model.safetensors").write_bytes(b"not read")
    monkeypatch.setattr(_preflight, "free_memory", lambda: 1000)
    for tower in ("image", "text"):
        with refused(Unavailable, "model m", " free"):
            models.load("m", entry(folder), tmp_path, tower, CPU, "fp32")


def test_memory_is_that_of_one_tower_in_its_dtype(tmp_path, monkeypatch):
    folder = local_dir(tmp_path / "m", KINDS["rotary"], create(KINDS["rotary"]))
    asked = []
    monkeypatch.setattr(_preflight, "memory", lambda name, needed, device, dtype: asked.append(needed))
    for tower, dtype in (("image", "fp32"), ("image", "fp16"), ("text", "fp32")):
        loaded = models.load("m", entry(folder), tmp_path, tower, CPU, dtype)
        assert asked[-1] == size_of(loaded.module)
    assert asked[1] < 0.51 * asked[0], "half of it in half precision"
    assert asked[0] != asked[2]


def test_files_of_the_local_cache_are_used_offline(cache):
    second = in_cache(cache, "some/repo", "open_clip_pytorch_model.bin")
    hubbed = ModelEntry.parse({"family": "open_clip", "hub": "some/repo", "preprocess": "x"}, "m")
    names = hub.weight_files(hubbed)
    assert hub.fetch("m", "some/repo", names, None) == second
    first = in_cache(cache, "some/repo", names[0])
    assert hub.fetch("m", "some/repo", names, None) == first
    assert hub.fetch("m", "some/repo", names[1], COMMIT) == second
    assert hub.cached(hubbed) == first
    assert hub.cached(hubbed.model_copy(update={"revision": "f" * 40})) is None, "another revision is another file"
    assert hub.cached(hubbed.model_copy(update={"hub": "some/other"})) is None


def test_offline_is_respected_and_explained_in_one_line(cache):
    parts = ("model m", "some/repo/a.safetensors (3.5 GB)", "HF_HUB_OFFLINE=1", "models.local.yaml")
    with refused(Unavailable, *parts) as error:
        hub.fetch("m", "some/repo", ("a.safetensors", "b.bin"), None, 3.5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "status, code, reason",
    [
        (403, "GatedRepo", "https://huggingface.co/some/repo"),
        (401, "RepoNotFound", "private"),
        (404, "EntryNotFound", "model m"),
        (503, "", "503"),
    ],
)
def test_the_hubs_answers_are_one_line(cache, monkeypatch, hub_server, status, code, reason):
    hub_server.answers[""] = (status, {"X-Error-Code": code}, b"")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's attempts
    with refused(Unavailable, "some/repo/a.safetensors", reason) as error:
        hub.fetch("m", "some/repo", "a.safetensors", None, None)
    assert "\n" not in str(error.value)


def test_the_first_file_that_a_repository_has_is_downloaded_at_its_revision(cache, hub_server):
    content = b"weights" * 100
    hub_server.answers["a.safetensors"] = (404, {"X-Error-Code": "EntryNotFound"}, b"")
    hub_server.answers["b.bin"] = (200, {"X-Repo-Commit": COMMIT, "ETag": '"abc"'}, content)
    path = hub.fetch("m", "some/repo", ("a.safetensors", "b.bin"), COMMIT, None)
    assert path.read_bytes() == content
    assert path.parent.name == COMMIT
    assert all(COMMIT in asked for asked in hub_server.asked)


def test_a_file_larger_than_the_disk_is_not_downloaded(cache, hub_server):
    size = str(10**15)
    hub_server.answers[""] = (200, {"X-Repo-Commit": COMMIT, "ETag": '"abc"', "X-Linked-Size": size}, b"")
    with refused(Unavailable, "1000000.0 GB"):
        hub.fetch("m", "some/repo", "a.safetensors", COMMIT, None)
    assert hub_server.methods == {"HEAD"}


@pytest.fixture
def limited(monkeypatch):
    """Image towers run out of memory above `limit` images, as a GPU does; the sizes that were tried."""
    tried, load, limit = [], models.load, 5

    def loaded(*args):
        model = load(*args)
        encode = model.encode_image

        def encode_image(pixels):
            tried.append(len(pixels))
            if len(pixels) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return encode(pixels)

        model.encode_image = encode_image
        return model

    monkeypatch.setattr(models, "load", loaded)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_no_image_is_lost(project_root, limited, capsys):
    expected, _ = chain_features.of_member(
        fresh(project_root, batch_size=1), fresh(project_root, batch_size=1).project.member("vit@tiny")
    )
    whole = expected.rows("features", 0, IMAGES).clone()
    for file in expected.path.glob("*.pt"):
        file.unlink()
    limited.clear()
    result, encoded = chain_features.of_member(
        fresh(project_root, batch_size=16, shard_rows=10),
        fresh(project_root, batch_size=16, shard_rows=10).project.member("vit@tiny"),
    )
    assert encoded == IMAGES
    torch.testing.assert_close(result.rows("features", 0, IMAGES), whole, atol=2e-3, rtol=0)
    assert limited == [1, 10, 5, 5, 5, 5, 3], "the canary; a shard of 10 does not fit, 5 is kept for all further ones"
    assert "out of memory, going on with batches of 5" in capsys.readouterr().out


def test_when_one_image_does_not_fit_that_is_said():
    def encode(rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with refused(Unavailable, "batch of 1"):
        list(chain_features.Batches(4).run(encode, [1, 2, 3]))


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
def test_transformers_repositories_are_loaded_from_the_cache(cache, tmp_path, shards):
    from ..models.test_transformers import checkpoint
    from ..tiny import PROMPTS

    saved = tmp_path / "saved"
    model = checkpoint(saved, "clip")
    (saved / "model.safetensors").unlink()
    model.save_pretrained(saved, max_shard_size=shards)
    for file in saved.iterdir():
        in_cache(cache, "some/clip", file.name, file.read_bytes())
    hubbed = ModelEntry.parse({"family": "transformers", "hub": "some/clip", "preprocess": "x"}, "m")
    text = models.load("m", hubbed, tmp_path, "text", CPU, "fp32")
    local = ModelEntry.parse({"family": "transformers", "weights": "saved", "preprocess": "x"}, "m")
    expected = models.load("m", local, tmp_path, "text", CPU, "fp32").encode_text(PROMPTS)
    torch.testing.assert_close(text.encode_text(PROMPTS), expected)


def test_shards_that_do_not_all_fit_are_refused_before_the_first(cache, hub_server):
    """Each alone would fit, and one of them is there."""
    in_cache(cache, "some/big", "2.bin")
    free = _preflight.shutil.disk_usage("/").free
    head = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(free // 2)}
    for file in ("1.bin", "3.bin", "4.bin"):
        hub_server.answers[file] = (200, {**head, "ETag": f'"{file}"'}, b"")
    with refused(Unavailable, "model m: ", " GB to download"):
        hub.fetch_all("m", "some/big", ["1.bin", "2.bin", "3.bin", "4.bin"], COMMIT)
    assert hub_server.methods == {"HEAD"} and len(hub_server.asked) == 3
