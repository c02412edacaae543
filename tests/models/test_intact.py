"""Weights that are damaged and would still load: sums of records and files, zeros, whole numbers."""

import hashlib
import json
import math

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from pipeline import models
from pipeline.core.errors import Damaged, Mismatch
from pipeline.models import _intact, hub
from pipeline.recipes import ModelEntry

from ..conftest import refused
from ..tiny import MEAN, STD, local_dir, pixels
from .conftest import COMMIT
from .test_evaclip import POST, Reference, load, write_pt
from .test_open_clip import KINDS, create, entry

CPU = torch.device("cpu")
FILE = "open_clip_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    return local_dir(tmp_path / "m", KINDS["clip"], create(KINDS["clip"]))


def features(folder, **more) -> torch.Tensor:
    return models.load("m", entry(folder, **more), folder.parent, "image", CPU, "fp32").encode_image(pixels(32))


def zeroed(content: bytes, start: float, share: float) -> bytes:
    first, count = int(start * len(content)), math.ceil(share * len(content)) + 1
    return (content[:first] + bytes(count) + content[first + count :])[: len(content)]


@pytest.mark.parametrize("start", [0.2, 0.5, 0.9])
def test_a_torch_file_whose_bytes_were_zeroed(folder, start):
    state = load_file(folder / FILE)
    (folder / FILE).unlink()
    file = folder / "open_clip_pytorch_model.bin"
    torch.save(state, file)
    whole = features(folder)
    content = file.read_bytes()
    file.write_bytes(zeroed(content, start, 0.005))
    with refused(Damaged, "open_clip_pytorch_model.bin", "fetch it", "checksum") as e:
        features(folder)
    assert "\n" not in str(e.value)
    assert features(folder, allow=["checksum"]).isfinite().all(), "without the check nothing would be seen"
    file.write_bytes(content)
    torch.testing.assert_close(features(folder), whole)


def test_a_large_family_reads_no_zeroed_record_either(tmp_path):
    folder = write_pt(tmp_path / "eva", Reference(POST).state(), POST)
    file = next(folder.glob("*.pt"))
    file.write_bytes(zeroed(file.read_bytes(), 0.5, 0.005))
    with refused(Damaged, "models.yaml: eva", file.name):
        load(folder, "image")


@pytest.mark.parametrize("missing", [0.0005, 0.005, 0.3, 0.9])
def test_a_preallocated_download_that_was_interrupted(folder, missing):
    """The header and the size are right, and the rest has not come."""
    file = folder / FILE
    content = file.read_bytes()
    file.write_bytes(zeroed(content, 1 - missing, missing))
    with refused(Damaged, FILE, "zeros", "fetch it"):
        features(folder)


@pytest.mark.parametrize("start", [0.1, 0.3, 0.6, 0.9])
def test_zeros_in_the_middle_of_a_local_file(folder, start):
    """As a download in several parts leaves them, of which one was lost: wherever they are."""
    file = folder / FILE
    file.write_bytes(zeroed(file.read_bytes(), start, 0.005))
    with refused(Damaged, "models.yaml: m:", "zeros in a row", "allow: [zeros]") as e:
        for tower in ("image", "text"):
            models.load("m", entry(folder), folder.parent, tower, CPU, "fp32")
    assert "\n" not in str(e.value)
    for tower in ("image", "text"):
        models.load("m", entry(folder, allow=["zeros"]), folder.parent, tower, CPU, "fp32")


def test_what_trained_weights_have_of_zeros_is_no_damage(folder):
    """Tokens that never occur, channels that died, and the first row of a table of sines."""
    state = load_file(folder / FILE)
    state["token_embedding.weight"][1000:1500] = 0
    state["positional_embedding"][:3] = 0
    torch.nn.init.zeros_(state["visual.transformer.resblocks.0.mlp.c_fc.weight"][3:40])
    save_file(state, folder / FILE)
    for tower in ("image", "text"):
        models.load("m", entry(folder), folder.parent, tower, CPU, "fp32")


@pytest.mark.parametrize(
    ("start", "count", "seen"),
    [(0, 4000, True), (5, 4000, True), (0, 1024, True), (96, 40 * 96, False), (7, 1000, False)],
)
def test_how_many_zeros_in_a_row_are_too_many(start, count, seen):
    """1,024 of four bytes, unless they are whole rows of 96."""
    weight = torch.rand(200, 96) + 1
    weight.view(-1)[start : start + count] = 0
    assert _intact._hole(weight) == (count if seen else 0)
    narrow = weight.half()
    assert bool(_intact._hole(narrow)) == (seen and count >= 2048)


def test_biases_of_zero_at_the_end_are_no_damage(folder):
    state = load_file(folder / FILE)
    state["visual.transformer.resblocks.1.mlp.c_proj.bias"].zero_()
    state["visual.ln_pre.bias"].zero_()
    save_file(state, folder / FILE)
    features(folder)


def test_a_matrix_of_zeros(folder):
    state = load_file(folder / FILE)
    state["visual.transformer.resblocks.0.mlp.c_fc.weight"].zero_()
    save_file(state, folder / FILE)
    with refused(Damaged, "models.yaml: m: visual", "c_fc.weight", "allow: [zeros]"):
        features(folder)
    features(folder, allow=["zeros"])


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "float8_e4m3fn"])
def test_quantised_weights(folder, kind):
    state = load_file(folder / FILE)
    state["visual.proj"] = (state["visual.proj"] * 100).to(getattr(torch, kind))
    save_file(state, folder / FILE)
    with refused(Mismatch, f"m: visual.proj is {kind}"):
        features(folder)


@pytest.fixture
def published(folder, cache, hub_server):
    """A backbone in a repository, and its file as the hub's client brought it."""
    content = (folder / FILE).read_bytes()
    etag = hashlib.sha256(content).hexdigest()
    hub_server.answers[FILE] = (200, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}, content)
    return hub.fetch("m", "some/clip", FILE, None)


def loaded(root, **more) -> torch.Tensor:
    """The image features of a checkpoint in the hub's local cache."""
    from .test_open_clip import VISION

    config = {"mean": MEAN, "std": STD, "resize_mode": "squash", "quick_gelu": False, "size": VISION["image_size"]}
    fields = {"family": "open_clip", "hub": "some/clip", "file": FILE, "preprocess": "x", **config, **more}
    from pipeline.models import _skeleton
    from pipeline.models.family import Wanted

    wanted = Wanted("m", ModelEntry.parse(fields, "m"), root, "image", CPU)
    return _skeleton.read(wanted, hub.weights(wanted))["visual.proj"].clone()


def damage(path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 4
    path.resolve().write_bytes(content)


def test_a_file_of_the_hub_is_what_the_hub_states(published, tmp_path):
    """And is still compared with it when it is damaged later, or when another file takes its place."""
    right = loaded(tmp_path)
    assert published.is_symlink()
    known = json.loads((tmp_path / "cache" / "hub-files.json").read_bytes().partition(b"\n")[2])
    assert list(known.values()) == [hashlib.sha256(published.read_bytes()).hexdigest()]
    damage(published)
    with refused(Damaged, published.name, "SHA-256", "the hub states"):
        loaded(tmp_path)
    loaded(tmp_path, allow=["checksum"])
    other = published.resolve().with_name("f" * 64)
    published.resolve().rename(other)
    published.unlink()
    published.symlink_to(other)
    with refused(Damaged, f"the hub states {next(iter(known.values()))[:12]}"):
        loaded(tmp_path)
    assert right.isfinite().all()


def test_where_links_are_not_possible_the_hub_is_asked_once(published, tmp_path, hub_server, monkeypatch):
    content = published.read_bytes()
    published.unlink()
    published.write_bytes(content)
    asked = len(hub_server.asked)
    loaded(tmp_path)
    assert len(hub_server.asked) > asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded(tmp_path)
    damage(published)
    with refused(Damaged, published.name, "the hub states"):
        loaded(tmp_path)


def test_offline_and_without_links_nothing_is_known(published, tmp_path, monkeypatch):
    content = published.read_bytes()
    published.unlink()
    published.write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded(tmp_path)


def test_a_file_is_read_for_its_sum_once(published, tmp_path, monkeypatch):
    import os
    import time

    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 10**10)  # the file is no longer young
    loaded(tmp_path)
    before = (tmp_path / "cache" / "intact.json").read_bytes()
    loaded(tmp_path)
    assert (tmp_path / "cache" / "intact.json").read_bytes() == before
    os.utime(published.resolve())
    damage(published)
    with refused(Damaged, published.name, "the hub states"):
        loaded(tmp_path)


class Card:
    """A GPU of so many free bytes that an image takes so many of."""

    def __init__(self, free: int, each: int):
        self.free, self.each, self.used = free, each, 0


def test_a_model_on_several_gpus_fits_the_fullest(folder, monkeypatch):
    """Blocks on the second GPU have less room than those on the first."""
    tower = models.load("m", entry(folder), folder.parent, "image", CPU, "fp32")
    cards = {0: Card(8000, 10), 1: Card(1000, 20)}
    tower.module.hf_device_map = {"stem": 0, "blocks.0": 0, "blocks.1": 1, "blocks.2": "cpu"}
    tower.device = torch.device("cuda", 0)
    peaks = dict.fromkeys(cards, 0)

    def encode(trial):
        for number, card in cards.items():
            peaks[number] = max(peaks[number], 100 + card.each * len(trial))

    monkeypatch.setattr(tower, "encode_image", encode)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda gpu: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda gpu: peaks[gpu.index])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda gpu: peaks.__setitem__(gpu.index, 100))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (cards[gpu.index].free, 0))
    assert tower.batch_size(4096) == 32, "0.7 x 1000 / 20 = 35, a power of two"
    assert tower.batch_size(16) == 16
    tower.module.hf_device_map = {"": 0}
    assert tower.batch_size(4096) == 512
