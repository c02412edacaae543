"""Places in an object store: what a Url gives, requests that fail, and a submission of which all lies there."""

import importlib.util
import io
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.chain import features, preprocess
from pipeline.chain.main_job import submit
from pipeline.chain.stage import make
from pipeline.core import artefacts, store
from pipeline.core.artefacts import MANIFEST, Artefact
from pipeline.core.errors import Changed, NotFound, Unavailable
from pipeline.core.files import atomic_file
from pipeline.core.store import Url, place

from ..conftest import IMAGES, fresh, pipeline, refused
from . import s3_server

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket(monkeypatch):
    """An empty store in memory, which gives up soon."""
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(store, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(artefacts, "_manifests", {})
    MemoryFileSystem.store.clear()
    yield Url("memory://bucket")
    MemoryFileSystem.store.clear()


@pytest.fixture
def failing(bucket, monkeypatch):
    """Every third request fails."""
    counted, system = [0], bucket._system

    def sometimes(name):
        answer = getattr(type(system), name)

        def ask(self, *arguments, **options):
            counted[0] += 1
            if counted[0] % 3 == 0:
                raise ConnectionResetError("cut off")
            return answer(self, *arguments, **options)

        monkeypatch.setattr(type(system), name, ask)

    for name in ("info", "cat_ranges", "pipe_file", "find", "rm_file"):
        sometimes(name)
    return bucket


def fill(url: Url, folder: Path) -> None:
    for path in folder.iterdir():
        (url / path.name).write_bytes(path.read_bytes())


class TestUrl:
    def test_names(self):
        url = Url("s3://bucket/a/b.tar.gz")
        assert (url.name, url.stem, url.suffix, str(url.parent)) == ("b.tar.gz", "b.tar", ".gz", "s3://bucket/a")
        assert str(url.with_suffix(".lock")) == "s3://bucket/a/b.tar.lock" and url == Url("s3://bucket/a") / "b.tar.gz"

    def test_what_a_text_points_to(self, tmp_path):
        assert place("data/x", tmp_path) == tmp_path / "data/x"
        assert place(f"file://{tmp_path}/x", Path("elsewhere")) == tmp_path / "x"
        assert place("memory://bucket/x/", tmp_path) == Url("memory://bucket/x")
        with refused(NotFound, "s4://"):
            place("s4://bucket/x", tmp_path)

    def test_objects(self, bucket):
        (bucket / "a").write_bytes(b"1")
        (bucket / "a").write_bytes(b"12345")
        (bucket / "d" / "b").write_bytes(b"")
        assert (bucket / "a").read_bytes() == b"12345" and (bucket / "d" / "b").read_bytes() == b""
        assert sorted(bucket.listed()) == ["a", "d/b"] and list(bucket.iterdir()) == [bucket / "a"]
        assert (bucket / "a").exists() and not (bucket / "c").exists() and not (bucket / "d").is_dir()
        (bucket / "a").unlink()
        (bucket / "a").unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError):
            (bucket / "a").read_bytes()

    def test_a_copy_for_another_process_has_no_connection(self, bucket):
        (bucket / "a").write_bytes(b"1")
        used = Url("memory://bucket/a")
        assert used.exists() and "_system" in vars(used)
        copy = pickle.loads(pickle.dumps(used))
        assert copy == used and "_system" not in vars(copy) and copy.read_bytes() == b"1"

    def test_a_large_object_is_read_in_ranges(self, bucket, monkeypatch):
        monkeypatch.setattr(store, "RANGE", 7)
        content = bytes(range(100))
        (bucket / "a").write_bytes(content)
        assert (bucket / "a").read_bytes() == content
        assert (bucket / "a").ranges([(90, 95), (0, 3)]) == [content[90:95], content[:3]]

    def test_nothing_is_written_by_a_block_that_fails(self, bucket):
        with pytest.raises(ZeroDivisionError), atomic_file(bucket / "a") as temporary:
            temporary.write_bytes(b"half")
            _ = 1 / 0
        assert not (bucket / "a").exists()

    def test_requests_that_fail_are_tried_again(self, failing):
        for number in range(20):
            (failing / str(number)).write_bytes(bytes([number]) * 100)
        assert all((failing / str(number)).read_bytes() == bytes([number]) * 100 for number in range(20))
        assert len(failing.listed()) == 20

    def test_a_store_that_does_not_answer_is_told(self, bucket, monkeypatch):
        def dead(*arguments, **options):
            raise ConnectionRefusedError("nobody there")

        monkeypatch.setattr(type(bucket._system), "pipe_file", dead)
        with refused(Unavailable, "memory://bucket/a", "nobody there"):
            (bucket / "a").write_bytes(b"1")


class TestShards:
    def artefact(self, bucket, rows=10):
        return Artefact(bucket / "x", {"a": 1}, tuple(map(str, range(rows))))

    def filled(self, bucket):
        found = self.artefact(bucket)
        for start, stop, *_ in found.claim(4):
            found.save(start, stop, rows=torch.arange(start, stop))
        return found

    def test_they_are_those_of_a_folder(self, bucket, tmp_path):
        stored, local = self.filled(bucket), Artefact(tmp_path, {"a": 1}, tuple(map(str, range(10))))
        for start, stop, *_ in local.claim(4):
            local.save(start, stop, rows=torch.arange(start, stop))
        for file in local.path.iterdir():
            assert (stored.path / file.name).read_bytes() == file.read_bytes()
        assert stored.rows("rows", 3, 9).tolist() == [3, 4, 5, 6, 7, 8] and stored.missing(4) == []

    def test_a_complete_result_is_one_request(self, bucket, monkeypatch):
        self.filled(bucket).seal()
        artefacts._manifests.clear()
        monkeypatch.setattr(Url, "listed", lambda self: pytest.fail("listed"))
        assert self.artefact(bucket).missing(4) == []

    def test_a_damaged_shard_is_found_on_reading_and_made_again(self, bucket, capsys):
        found = self.filled(bucket)
        found.seal()
        file = found._file(4, 8)
        content = file.read_bytes()
        file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        with refused(Changed, str(file)):
            found.rows("rows", 4, 8)
        assert found.missing(4) == [(4, 8)] and not (found.path / MANIFEST).exists()
        assert "is damaged and is computed again" in capsys.readouterr().out
        again = self.filled(bucket)
        assert again._file(4, 8).read_bytes() == content and again.rows("rows", 0, 10).tolist() == list(range(10))


def test_images_and_cache_in_a_store_give_the_same_submission(project_root, failing):
    local = submit(fresh(project_root, shard_rows=8), "both").read_text()
    fill(failing / "images", project_root / "data" / "tiny")
    shutil.rmtree(project_root / "submissions")
    settings = {"data": "memory://bucket/images", "cache_at": "memory://bucket/cache", "shard_rows": 8}
    assert submit(fresh(project_root, **settings), "both").read_text() == local
    kept = {name.split("/")[1] for name in (failing / "cache" / "tiny").listed() for name in [f"tiny/{name}"]}
    assert kept == {"features", "probs", "ensemble", "threshold", "problems"}, "pixels stay on the machine"

    task = fresh(project_root, **settings)
    shutil.rmtree(project_root / "cache")
    assert all(make(features.stage(task, task.project.member(name))) == 0 for name in ("vit", "vit2@tiny-sharp"))


def test_an_object_that_changes_is_another_image(project_root, bucket):
    fill(bucket, project_root / "data" / "tiny")
    before = preprocess.stage(fresh(project_root, data=str(bucket)), "tiny").digest
    assert preprocess.stage(fresh(project_root, data=str(bucket)), "tiny").digest == before
    (bucket / "3.jpg").write_bytes((project_root / "data" / "tiny" / "4.jpg").read_bytes())
    assert preprocess.stage(fresh(project_root, data=str(bucket)), "tiny").digest != before


def test_a_listing_in_pages_goes_on_after_a_failure(monkeypatch):
    """obstore lists some thousand objects at a time, and is asked again from the last that came."""
    obstore = pytest.importorskip("obstore")
    from obstore.store import MemoryStore

    kept, counted, listing = MemoryStore(), [0], obstore.list
    for number in range(25):
        kept.put(f"a/{number:02d}.jpg", b"x")
    kept.put("b.jpg", b"x")

    def fails(*arguments, **options):
        counted[0] += 1
        if counted[0] % 2:
            raise ConnectionResetError("cut off")
        for page in listing(*arguments, **options):
            yield page
            raise ConnectionResetError("cut off")

    monkeypatch.setattr(obstore, "list", fails)
    monkeypatch.setattr(store, "PAGE", 10)
    monkeypatch.setattr(store, "FIRST_WAIT", 0.001)
    url = Url("s3://bucket/a")
    system = SimpleNamespace(_split_path=lambda key: ("bucket", "a"), _construct_store=lambda bucket: kept)
    url.__dict__.update(_system=system, _key="bucket/a")
    pages = list(url.pages())
    assert [len(page) for page in pages] == [10, 10, 5] and counted[0] > 3
    assert [name for page in pages for name in page] == [f"{number:02d}.jpg" for number in range(25)]


def test_patterns_and_what_is_not_there(project_root, bucket):
    fill(bucket / "deep" / "a", project_root / "data" / "tiny")
    with refused(NotFound, "memory://bucket/deep", "**"):
        _ = fresh(project_root, data="memory://bucket/deep").images
    found = fresh(project_root, data="memory://bucket/deep/**/*.jpg").images
    assert found.ids == tuple(f"a/{number}.jpg" for number in range(IMAGES))
    with refused(NotFound, "DATA", "memory://bucket/none"):
        _ = fresh(project_root, data="memory://bucket/none").images


def test_a_table_is_written_there(project_root, bucket):
    pytest.importorskip("pyarrow")
    from pipeline.cli.predict import predict

    fill(bucket / "images", project_root / "data" / "tiny")
    task = fresh(project_root, shard_rows=10)
    out = predict(task, "vit", "memory://bucket/images", "cat,dog", None, 2, "memory://bucket/out.parquet")
    assert len(out.listed()) == 3
    local = predict(task, "vit", "data/tiny", "cat,dog", None, 2, "out.parquet")
    from pyarrow import parquet

    stored = [parquet.read_table(io.BytesIO(url.read_bytes())) for url in sorted(out.iterdir())]
    assert [one.to_pylist() for one in stored] == [parquet.read_table(p).to_pylist() for p in sorted(local.iterdir())]


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """moto's S3 server, which fails as it is told; a bucket in it, and the environment that leads there."""
    if not s3_server.there():
        pytest.skip("no S3 server: MOTO_PYTHON names no interpreter that has moto[server]")
    if not any(importlib.util.find_spec(name) for name in ("obstore", "s3fs")):
        pytest.skip("no client of S3: install the extra store")
    with s3_server.running(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "fail", "slow", "cut"])
def test_a_submission_from_and_into_s3(project_root, s3, fault):
    """5 % of the requests fail; each takes 50 ms more; answers end early and for two seconds nothing is answered."""
    local = submit(fresh(project_root, shard_rows=8), "both").read_text()
    shutil.rmtree(project_root / "submissions")
    shutil.rmtree(project_root / "cache")
    fill(Url("s3://bucket/images"), project_root / "data" / "tiny")
    s3.fault(fault)
    given = ["DATA=s3://bucket/images", "CACHE=s3://bucket/cache", "SHARD=8", "DTYPE=fp32", "ENSEMBLE=both"]
    result = pipeline(project_root, "submit", "COMPETITION=tiny", *given)
    assert result.returncode == 0, result.stderr
    assert fault in ("none", "slow") or s3.failed() > 0, "nothing failed"
    assert (project_root / "submissions" / "tiny" / "001-both.csv").read_text() == local
    again = pipeline(project_root, "infer", "COMPETITION=tiny", *given)
    assert "encoding" not in again.stdout and "reused" in again.stdout, again.stdout + again.stderr
