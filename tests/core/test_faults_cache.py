"""Damaged, foreign and hostile files in the cache; disks that are full, read-only or out of inodes."""

import contextlib
import errno
import os
import random
import resource
import subprocess
from pathlib import Path

import pytest
import torch

from pipeline.__main__ import main
from pipeline.chain import text as chain_text
from pipeline.chain.main_job import submit
from pipeline.core import artefacts, digests
from pipeline.core.artefacts import Artefact
from pipeline.core.digests import FileDigests, write_memo
from pipeline.core.errors import Changed, Exists

from .. import damage
from ..conftest import ROOT, fresh, refused, write_yaml

CORPUS = ROOT / "tests" / "corpus" / "artefacts"
STAGES = ("images", "features", "text", "probs", "ensemble", "threshold")
PLACES = ("link to itself", "link to nowhere")
KINDS = (*damage.BYTES, *PLACES)


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob(damage.TRAP))


def contents(root: Path) -> dict[str, bytes]:
    """All shards by their path, without records of damaged images (test_problems.py) and of canaries."""
    paths = (path for path in (root / "cache").rglob("*.pt") if not {"problems", "canaries"} & set(path.parts))
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def stage_of(file: str) -> int:
    return min(number for number, stage in enumerate(STAGES) if stage in Path(file).parts)


def put(root: Path, files: dict[str, bytes], before: int = len(STAGES)) -> None:
    """Make the cache hold these files, of the stages up to `before`, and no others."""
    for path in contents(root):
        (root / path).unlink()
    for file, content in files.items():
        if stage_of(file) <= before:
            (root / file).write_bytes(content)


class TestChain:
    """Whatever one file of the cache became: submission and cache are what they were, or it is refused."""

    @pytest.fixture
    def made(self, project_root) -> dict[str, bytes]:
        submit(fresh(project_root, shard_rows=8), "both")
        return contents(project_root)

    def check(self, root: Path, made: dict[str, bytes], file: str, capsys) -> None:
        submit(fresh(root, shard_rows=8), "both")
        assert f"{file} is damaged and is computed again" in capsys.readouterr().out
        assert contents(root) == made
        assert len(list((root / "submissions" / "tiny").glob("0*.csv"))) == 1

    def one_of_each_stage(self, made) -> list[str]:
        return [next(file for file in sorted(made) if stage_of(file) == number) for number in range(len(STAGES))]

    def test_a_file_of_each_stage_in_some_ways(self, project_root, made, capsys):
        for number, file in enumerate(self.one_of_each_stage(made)):
            for kind in KINDS[number::6]:
                put(project_root, made, stage_of(file))
                damage.replace(project_root / file, kind)
                self.check(project_root, made, file, capsys)

    @pytest.mark.faults
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_file_in_every_way(self, project_root, made, kind, capsys):
        for file in made:
            put(project_root, made, stage_of(file))
            damage.replace(project_root / file, kind)
            self.check(project_root, made, file, capsys)

    @pytest.mark.faults
    def test_every_file_in_the_place_of_others(self, project_root, made, capsys):
        """Other shards, members and stages, the nearest ones first."""
        for file in made:
            near = sorted(set(made) - {file}, key=lambda other: (abs(stage_of(file) - stage_of(other)), other))
            for other in near[:3] + near[-1:]:
                put(project_root, made, stage_of(file))
                (project_root / file).write_bytes(made[other])
                self.check(project_root, made, file, capsys)

    def test_a_shard_of_another_place_or_version(self, project_root, made, capsys):
        first, second = sorted(file for file in made if "features/vit@" in file)[:2]
        member = next(file for file in made if "features/vit2@" in file)
        old = artefacts.load(project_root / first)
        artefacts.save(project_root / "old.pt", {"format": 0}, ids=old["ids"], features=old["features"] * 2)
        for content in (made[second], made[member], (project_root / "old.pt").read_bytes()):
            put(project_root, made, stage_of(first))
            (project_root / first).write_bytes(content)
            self.check(project_root, made, first, capsys)

    def test_a_folder_in_the_place_of_a_file_is_refused_and_kept(self, project_root, made):
        for file in self.one_of_each_stage(made):
            put(project_root, made, stage_of(file))
            damage.replace(project_root / file, "directory")
            (project_root / file / "precious").touch()
            with refused(Exists, file):
                submit(fresh(project_root, shard_rows=8), "both")
            assert (project_root / file / "precious").exists()
            (project_root / file / "precious").unlink()
            (project_root / file).rmdir()

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_remembered_of_files_is_learnt_again(self, project_root, made, kind):
        for memo in ("cache/tiny/files.json", "cache/weights.json"):
            (project_root / memo).unlink(missing_ok=True)
            write_memo(project_root / memo, {"/some/file": [[1, 2, 3], "digest"]})
            if kind not in ("bit of a tensor", "pickle in an archive"):
                damage.replace(project_root / memo, kind)
        submit(fresh(project_root, shard_rows=8), "both")
        assert contents(project_root) == made

    @pytest.mark.parametrize("content", [b"", b"data/other", b"\xff\xfe\n"])
    def test_with_a_damaged_list_of_sources_nothing_is_cleaned(self, project_root, made, content, monkeypatch):
        monkeypatch.chdir(project_root)
        (project_root / "cache/tiny/sources.txt").write_bytes(content)
        write_yaml(project_root / "prompts/tiny/dogs.yaml", {"name": "hound"})
        assert main(["clean-cache"]) == 0
        assert contents(project_root) == made
        assert main(["submit", "--competition", "tiny", "--dtype", "fp32"]) == 0


class TestShard:
    IDS = tuple(f"{number}.jpg" for number in range(4))

    @pytest.fixture
    def shard(self, tmp_path) -> tuple[Artefact, Path, bytes]:
        result = Artefact(tmp_path / "stage", {"stage": "test"}, self.IDS)
        result.save(0, 4, rows=torch.arange(12.0).reshape(4, 3), names=["a", "b"])
        (file,) = result.path.glob("*.pt")
        return result, file, file.read_bytes()

    def check(self, shard, content: bytes) -> bool:
        """Whether the file is used; if so it says what it said."""
        result, file, _ = shard
        file.write_bytes(content)
        found = artefacts.load(file, result.digest)
        if found is None:
            return False
        assert torch.equal(found.pop("rows"), torch.arange(12.0).reshape(4, 3))
        assert found == {
            "ids": list(self.IDS),
            "names": ["a", "b"],
            "digest": result.digest,
            "made_from": '{"stage": "test"}',
        }
        return True

    def others(self, tmp_path, shard) -> list[bytes]:
        """Other whole shards, archives and pickles to splice with."""
        found = [damage.BYTES["pickle"](b""), damage.zip_with(shard[2], "data.pkl", damage.BYTES["pickle"](b""))]
        for rows in (torch.arange(12.0).reshape(4, 3) + 1, torch.zeros(4, 3, dtype=torch.float16)):
            artefacts.save(tmp_path / "other.pt", {"stage": "tests"}, ids=list(self.IDS), rows=rows, names=["a", "b"])
            found.append((tmp_path / "other.pt").read_bytes())
        return found

    def test_it_is_used_as_it_was_written(self, shard):
        assert self.check(shard, shard[2])

    def fuzz(self, tmp_path, shard, count: int, seed: int) -> None:
        rng, others = random.Random(seed), self.others(tmp_path, shard)
        used = sum(self.check(shard, damage.mutated(shard[2], others, rng)) for _ in range(count))
        assert used < count / 2

    def test_random_damage_is_refused_or_harmless(self, tmp_path, shard):
        self.fuzz(tmp_path, shard, 200, 0)

    @pytest.mark.faults
    @pytest.mark.parametrize("seed", range(1, 5))
    def test_more_random_damage(self, tmp_path, shard, seed):
        self.fuzz(tmp_path, shard, 10_000, seed)

    @pytest.mark.faults
    @pytest.mark.parametrize("part", range(4))
    def test_every_single_bit(self, shard, part):
        for bit in range(part, 8 * len(shard[2]), 4):
            self.check(shard, damage.flip(shard[2], bit))

    @pytest.mark.faults
    def test_every_length(self, shard):
        for length in range(len(shard[2])):
            assert not self.check(shard, shard[2][:length])

    def test_bits_of_a_tensor_and_of_the_ids(self, shard):
        content = shard[2]
        for found in (torch.arange(12.0).numpy().tobytes(), b"2.jpg"):
            at = content.index(found)
            for bit in range(8 * at, 8 * (at + len(found)), 3):
                assert not self.check(shard, damage.flip(content, bit))

    @pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.glob("*")))
    def test_what_once_failed(self, shard, name):
        assert not self.check(shard, (CORPUS / name).read_bytes())

    def test_a_file_that_cannot_be_read_now_is_not_damaged(self, shard):
        """Out of file descriptors: an error, and the hours it cost to compute stay on disk."""
        result, file, content = shard
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.open("/dev/null", os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
        try:
            with pytest.raises(OSError) as error:
                artefacts.load(file, result.digest)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(taken[0])
        assert error.value.errno == errno.EMFILE
        assert file.read_bytes() == content

    @pytest.mark.parametrize("kind", ["bit of a tensor", "gone"])
    def test_damage_during_the_run_is_a_plain_error(self, shard, kind):
        result, file, content = shard
        assert result.missing(4) == []
        file.unlink() if kind == "gone" else file.write_bytes(damage.BYTES[kind](content))
        with refused(Changed, str(result.path), "run the same command again"):
            result.rows("rows", 0, 4)

    def test_an_old_shard_is_not_read_again_to_be_listed_and_is_to_be_used(self, shard, monkeypatch):
        result, file, content = shard
        monkeypatch.setattr(digests, "YOUNG", -1)
        assert result.missing(4) == []
        with monkeypatch.context() as patch:
            patch.setattr(artefacts, "load", None)
            assert result.missing(4) == []
        status = file.stat()
        file.write_bytes(damage.BYTES["bit of a tensor"](content))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert result.missing(4) == [(0, 4)], "the change time differs"


class TestMemo:
    def test_a_damaged_memo_is_empty(self, tmp_path):
        known = {"/data/0.jpg": [[1, 2, 3], "ab"], "/data/1.jpg": [[4, 5, 6], "cd"]}
        write_memo(tmp_path / "memo.json", known)
        content = (tmp_path / "memo.json").read_bytes()
        assert FileDigests(tmp_path / "memo.json").known == known
        rng = random.Random(0)
        damaged = [damage.flip(content, bit) for bit in range(0, 8 * len(content), 7)]
        damaged += [damage.mutated(content, [b"[]", b"{}", content[::-1]], rng) for _ in range(100)]
        for changed in {*damaged, b"[]", b"\n[]", b"[" * 100_000} - {content}:
            (tmp_path / "memo.json").write_bytes(changed)
            assert FileDigests(tmp_path / "memo.json").known == {}


@pytest.fixture
def small_disk(project_root, monkeypatch):
    """cache/ on a file system of its own; `remount(options)` changes it."""
    folder = project_root / "cache"
    folder.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    monkeypatch.chdir(project_root)

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    yield remount
    subprocess.run(["umount", "--lazy", folder], check=True)


class TestDisk:
    """Writes that fail are one line; what is there is whole; the next run goes on from it."""

    SUBMIT = ("submit", "--competition", "tiny", "--dtype", "fp32", "--shard", "8")

    def fails(self, capsys, why: str) -> None:
        assert main(self.SUBMIT) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert [line for line in lines if not line.startswith("warning")] == lines[-1:], lines
        assert lines[-1].startswith("error: "), lines
        assert why in lines[-1] or "GB free on its disk" in lines[-1], lines

    def check_whole(self, root: Path, made: dict[str, bytes]) -> int:
        left = [path for path in (root / "cache").rglob("*") if path.is_file() and path.suffix == ".tmp"]
        assert left == [], "nothing half-written"
        found = contents(root)
        assert found.items() <= made.items()
        return len(found)

    @pytest.fixture
    def made(self, project_root, small_disk) -> dict[str, bytes]:
        """What a run on a large disk makes; the disk is empty again."""
        assert main(self.SUBMIT) == 0
        made = contents(project_root)
        self.clear(project_root)
        return made

    def clear(self, root: Path) -> None:
        subprocess.run(["find", root / "cache", "-mindepth", "1", "-delete"], check=True)

    def full(self, root: Path, made, remount, capsys, option: str, amount: int) -> None:
        remount(f"{option}={amount}")
        self.fails(capsys, "No space left on device")
        kept = self.check_whole(root, made)
        remount("size=100m,nr_inodes=10000")
        assert main(self.SUBMIT) == 0
        assert contents(root) == made
        said = capsys.readouterr().out
        assert kept == 0 or "reused" in said or "cached" in said
        self.clear(root)

    @pytest.mark.parametrize("option, amount", [("size", 64 << 10), ("nr_inodes", 14)])
    def test_full(self, project_root, small_disk, made, capsys, option, amount):
        self.full(project_root, made, small_disk, capsys, option, amount)

    @pytest.mark.faults
    @pytest.mark.parametrize("option", ["size", "nr_inodes"])
    def test_full_at_every_point(self, project_root, small_disk, made, capsys, option):
        used = os.statvfs(project_root / "cache")
        assert main(self.SUBMIT) == 0
        now = os.statvfs(project_root / "cache")
        self.clear(project_root)
        pages = (used.f_bfree - now.f_bfree) * now.f_bsize // 4096
        amounts = range(1, pages - 1) if option == "size" else range(2, used.f_ffree - now.f_ffree)
        for amount in amounts[:: max(1, len(amounts) // 40)]:
            self.full(project_root, made, small_disk, capsys, option, amount * (4096 if option == "size" else 1))

    def test_read_only(self, project_root, small_disk, made, capsys):
        """What is cached can be used; what has to be written is refused in one line."""
        small_disk("ro")
        self.fails(capsys, "Read-only file system")
        small_disk("rw")
        assert main(self.SUBMIT) == 0
        small_disk("ro")
        assert main(self.SUBMIT) == 0
        before = contents(project_root)
        write_yaml(project_root / "prompts/tiny/dogs.yaml", {"name": "hound"})
        capsys.readouterr()
        self.fails(capsys, "Read-only file system")
        assert contents(project_root) == before
        small_disk("rw")
        assert main(self.SUBMIT) == 0

    def test_a_damaged_shard_on_a_read_only_disk_is_refused(self, project_root, small_disk, made, capsys):
        assert main(self.SUBMIT) == 0
        (file,) = (project_root / "cache/tiny/threshold/both").glob("*/*-00000008.pt")
        damage.replace(file, "bit of a tensor")
        small_disk("ro")
        self.fails(capsys, "Read-only file system")
        small_disk("rw")
        assert main(self.SUBMIT) == 0
        assert contents(project_root) == made


def test_a_prompt_edit_reads_only_the_text_that_is_whole(project_root, capsys):
    """A damaged text cache costs its prompts once more, and no image."""
    task = fresh(project_root)
    first, _ = chain_text.of_prompts(task, "vit", task.prompts)
    before = first.features.clone()
    file = chain_text.file(task, "vit")
    for kind in KINDS[::4]:
        damage.replace(file, kind)
        again, new = chain_text.of_prompts(fresh(project_root), "vit", task.prompts)
        assert new == len(task.prompts.prompts)
        assert torch.equal(again.features, before)
        assert capsys.readouterr().out.count("is damaged and is computed again") == 1
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    assert chain_text.cached(fresh(project_root), "vit", task.prompts.prompts)[0] is None
