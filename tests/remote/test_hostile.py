"""Whatever lies where a file of features should: refused in one line, nothing merged, nothing executed or unpacked."""

import io
import json
import os
import pickle
import random
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.remote.features_file import KEY, FeaturesFile, _digest_of

from ..conftest import IMAGES, ROOT, pipeline
from ..damage import TRAP, Trap, flip
from .conftest import automatic, parts
from .test_unpack import cached


def zipped(*members: tuple[str, bytes], link: str = "") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
        if link:
            entry = zipfile.ZipInfo("link")
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, link)
    return target.getvalue()


def tarred(name: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    return target.getvalue()


def torch_file() -> bytes:
    target = io.BytesIO()
    torch.save({"digest": Trap()}, target)
    return target.getvalue()


def headed(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


def tensor(shape: list[int], end: int, dtype: str = "F16") -> dict:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def claimed(text: str) -> bytes:
    """A whole file of no tensors whose manifest is any text, with the right digest."""
    about = {"__metadata__": {KEY: text, "digest": _digest_of(text.encode())}}
    return headed(json.dumps(about).encode())


DUPLICATE = (
    b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}'
)
HOSTILE = {
    "nothing": b"",
    "a page": b"<html>404 not found</html>",
    "noise": random.Random(0).randbytes(5000),
    "a zip that leads out": zipped(("../../evil", b"evil")),
    "a zip with an absolute path": zipped(("/tmp/evil", b"evil")),
    "a zip with a link": zipped(("a", b""), link="/etc/passwd"),
    "a zip with one name twice": zipped(("manifest.json", b"{}"), ("Manifest.json", b"{}")),
    "a bomb": zipped(("a", bytes(30_000_000))),
    "a tar that leads out": tarred("../evil"),
    "a pickle": pickle.dumps(Trap()),
    "a pickle in torch's archive": torch_file(),
    "a header longer than the file": headed(b"{}", length=10_000),
    "a header of 2^63 bytes": headed(b"{}", length=2**63),
    "a header of 200 MB, said": headed(b"{}", length=200_000_000),
    "nesting in the header": headed(b"[" * 100_000),
    "a tensor beyond the file": headed(json.dumps(tensor([2**40], 2**41)).encode(), b"12"),
    "a shape that overflows": headed(json.dumps(tensor([2**62, 2**62], 2)).encode(), b"12"),
    "a negative shape": headed(json.dumps(tensor([-1], 2)).encode(), b"12"),
    "bytes that no tensor has": headed(json.dumps(tensor([1], 2)).encode(), b"1234"),
    "two tensors in one place": headed(json.dumps({**tensor([1], 2), "b": tensor([1], 2)["a"]}).encode(), b"12"),
    "one name twice": headed(DUPLICATE, b"12"),
    "another type": headed(json.dumps(tensor([1], 2, "BF16")).encode(), b"12"),
    "no manifest": headed(json.dumps(tensor([1], 2)).encode(), b"12"),
    "a manifest that is no JSON": claimed("{"),
    "a manifest of nesting": claimed("[" * 200_000),
    "a manifest of another version": claimed('{"format": 2}'),
    "a manifest that is a list": claimed("[]"),
    "an unknown key": claimed('{"competition": "tiny", "data": null, "images": [], "texts": [], "run": "rm -rf /"}'),
    "no tensors": claimed('{"competition": "tiny", "data": null, "images": [], "texts": []}'),
    "a tensor that is not there": claimed(
        '{"competition": "tiny", "data": null, "images": [], "texts": [], "digests": {"list": "0"}}'
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_file_of_features_is_refused(project_root, tmp_path, unpack, name):
    path = tmp_path / "x.features"
    path.write_bytes(HOSTILE[name])
    files = sorted(tmp_path.rglob("*"))
    done = unpack(path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == files, "nothing is written, nothing was executed"
    assert not (project_root / TRAP).exists()


def test_what_is_no_file_at_all_is_refused(project_root, tmp_path, unpack):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("absent", "pipe", "loop", "project", "a" * 300, "nul\0"):
        done = unpack(tmp_path / name)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), name


def refused(path, content: bytes, whole: dict) -> bool:
    """Whether a changed file is refused; if not, it must hold what the whole one does."""
    path.write_bytes(content)
    try:
        file = FeaturesFile.open(path)
    except UserError:
        return True
    assert all(np.array_equal(file.array(name), array) for name, array in whole.items())
    return False


@pytest.mark.parametrize("often", [60, pytest.param(4_000, marks=pytest.mark.faults)])
def test_random_damage_is_refused_or_harmless(project_root, brought, often):
    path = brought()
    content, (_, whole), chance = path.read_bytes(), parts(project_root), random.Random(often)
    manifest = FeaturesFile.open(path).manifest
    for _ in range(often):
        match chance.randrange(4):
            case 0:
                changed = flip(content, chance.randrange(8 * len(content)))
            case 1:
                changed = content[: chance.randrange(len(content))]
            case 2:
                at = chance.randrange(len(content))
                changed = content[:at] + chance.randbytes(chance.randrange(1, 64)) + content[at:]
            case 3:
                a, b = chance.randrange(len(content) - 64), chance.randrange(len(content) - 64)
                changed = content[:a] + content[b : b + 64] + content[a + 64 :]
        if not refused(path, changed, whole):
            assert FeaturesFile.open(path).manifest == manifest


@pytest.mark.faults
def test_bits_and_lengths_from_end_to_end(project_root, brought):
    path = brought(lambda fields, tensors: [fields.update(images=[]), *map(tensors.pop, list(tensors)[1:4])], stop=1)
    content, whole = path.read_bytes(), {}
    manifest = FeaturesFile.open(path).manifest
    for bit in range(0, 8 * len(content), 31):
        if not refused(path, flip(content, bit), whole):
            assert FeaturesFile.open(path).manifest == manifest
    for length in range(0, len(content), 7):
        assert refused(path, content[:length], whole), length


@pytest.mark.faults
def test_killed_at_any_moment_and_then_whole(project_root, brought):
    path, chance = brought(), random.Random(5)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline", "unpack", "--file", str(path)]
    for _ in range(8):
        run = subprocess.Popen(command, cwd=project_root, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(1.0, 4.0))
        run.kill()
        run.wait()
    done = pipeline(project_root, "unpack", "--file", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("23 of 23 are here") == 2
    assert_whole(project_root)


@pytest.mark.faults
def test_several_at_once_end_as_one(project_root, brought):
    path = brought()
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: pipeline(project_root, "unpack", "--file", str(path)), range(3)))
    assert [run.returncode for run in runs] == [0, 0, 0], [run.stderr for run in runs]
    assert_whole(project_root)


def assert_whole(root) -> None:
    """The cache has what the file has, once."""
    from pipeline.chain import features, text

    _, tensors = parts(root)
    task = automatic(root)
    for name in ("vit@tiny", "vit2@tiny-sharp"):
        member = task.project.member(name)
        stage = features.stage(task, member)
        wanted = np.concatenate([tensors[f"{name}/{start}"] for start in (0, 10, 20)])
        assert np.array_equal(stage.rows("features", 0, IMAGES).numpy(), wanted)
        known, new = text.cached(task, member.model, task.prompts.prompts)
        assert new == []
        assert np.array_equal(known["features"].numpy(), tensors[member.model])
    assert not [file for file in cached(root) if file.name.endswith((".tmp", ".lock"))]
