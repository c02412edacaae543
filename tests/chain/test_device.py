"""On a simulated GPU: features are those of a CPU, and the host waits once a shard, never for an idle GPU."""

import shutil

import pytest
import torch

from pipeline.chain import features, preprocess
from pipeline.chain.feeding import Feed
from pipeline.chain.stage import make
from pipeline.core.errors import Damaged, Unavailable

from ..conftest import IMAGES, SIZE, fresh, refused, write_yaml
from ..gpu import Gpu, OnGpu

SHARD, BATCH = 10, 3


@pytest.fixture(params=["as late as may be", "as soon as may be"])
def gpu(request, monkeypatch):
    """Makes the GPU; its copies are done at one end or the other of the time that they have."""
    return lambda: Gpu(monkeypatch, request.param == "as soon as may be")


def task_of(root):
    return fresh(root, shard_rows=SHARD, batch_size=BATCH, device_name="cpu")


def stage_of(root) -> features.Stage:
    task = task_of(root)
    return features.stage(task, task.project.member("vit@tiny"))


def encoding(root) -> features.Encoding:
    task = task_of(root)
    member = task.project.member("vit@tiny")
    return features.Encoding(task, member, preprocess.stage(task, member.preprocess), "fp32")


@pytest.fixture
def right(project_root):
    """What a CPU makes of the recipe as it is."""

    def made() -> torch.Tensor:
        stage = stage_of(project_root)
        make(stage)
        rows = stage.rows("features", 0, IMAGES).clone()
        shutil.rmtree(project_root / "cache")
        return rows

    return made


def test_the_simulation_sees_waiting():
    OnGpu.waited.clear()
    there = torch.ones(2).as_subclass(OnGpu)
    assert isinstance(torch.cat([there, there]) * 2, OnGpu) and not OnGpu.waited
    assert not isinstance(there.cpu(), OnGpu)
    _ = bool(there[0] > 0), there[0].item(), there.to("cpu")
    assert OnGpu.waited.total() == 4


@pytest.mark.parametrize("recipe", [{}, {"views": ["identity", "hflip"]}])
def test_features_are_right_and_the_gpu_is_never_idle_when_the_host_waits(project_root, right, gpu, recipe):
    write_yaml(project_root / "preprocess" / "tiny.yaml", {"size": SIZE, "ops": [{"resize": "squash"}], **recipe})
    expected, gpu = right(), gpu()
    stage = stage_of(project_root)
    make(stage)
    assert torch.equal(stage.rows("features", 0, IMAGES), expected)
    assert len(gpu.left) == len(stage.shards()) > 2, "the host waits once a shard"
    assert all(gpu.left[:-1]), "there is something of the next one to compute"
    assert not OnGpu.waited
    assert set(gpu.given) == {torch.uint8}, "pixels travel as bytes"


def test_a_batch_that_does_not_fit_is_halved(project_root, right, gpu):
    expected, gpu = right(), gpu()
    gpu.limit = 2
    stage = stage_of(project_root)
    make(stage)
    torch.testing.assert_close(stage.rows("features", 0, IMAGES), expected, atol=2e-3, rtol=0)
    assert len(gpu.left) == len(stage.shards())


def test_memory_that_is_copied_from_is_not_written_to_when_another_shard_comes(project_root, right, gpu):
    """Another process took the one that was begun."""
    expected, gpu = right(), gpu()
    work, found = encoding(project_root), {}
    for span, following in [((0, 10), (10, 20)), ((20, 23), (0, 10)), ((10, 20), None)]:
        if following:
            work.expect(*following)
        found[span] = work.rows(*span, lambda rows: None)["features"]
        assert set(work.begun) == ({following} if following else set())
    work.close()
    assert torch.equal(torch.cat([found[span] for span in sorted(found)]), expected)


def test_what_is_wrong_with_the_next_shard_loses_nothing_of_this_one(project_root, gpu):
    path = project_root / "data" / "tiny" / "12.jpg"
    whole, gpu = path.read_bytes(), gpu()
    path.write_bytes(whole[:200])
    with refused(Damaged, "12.jpg"):
        make(stage_of(project_root))
    assert [start for start, *_ in stage_of(project_root).shards()] == [0]
    path.write_bytes(whole)
    shutil.rmtree(project_root / "cache")
    encode, batches = features.Views.encode_image, []

    def full(views, pixels):
        batches.append(len(pixels))
        if sum(batches) > SHARD + BATCH:  # the first batch of the next one still fits
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(views, pixels)

    gpu.patch.setattr(features.Views, "encode_image", full)
    with refused(Unavailable, "batch of 1"):
        make(stage_of(project_root))
    assert [start for start, *_ in stage_of(project_root).shards()] == [0]


def test_a_row_that_is_not_finite_is_named(project_root, gpu):
    gpu = gpu()
    encode = gpu.originals[3]

    def overflowing(views, pixels):
        found = encode(views, pixels)
        return found * float("nan") if len(found) == 1 else found  # the last batch of a shard

    gpu.originals = *gpu.originals[:3], overflowing
    with refused(Damaged, "9.jpg"):
        make(stage_of(project_root))
    assert stage_of(project_root).shards() == []


def test_a_cpu_has_no_streams_and_begins_nothing_beforehand(project_root, monkeypatch):
    def never(*_, **__):
        raise AssertionError("nothing of a GPU is asked for")

    for name in ("Stream", "Event", "current_stream", "stream", "init"):
        monkeypatch.setattr(torch.cuda, name, never)
    monkeypatch.setattr(Feed, "ready", never)
    make(stage_of(project_root))
    assert not torch.cuda.is_initialized()
