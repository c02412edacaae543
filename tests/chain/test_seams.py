"""Guards that only matter when two things meet: each is removed in thought, and its test would fail."""

import fcntl
import os
import threading
from contextlib import contextmanager, suppress

import pytest
import torch

from pipeline.chain import canary, csv_format, features, main_job, preprocess, probs
from pipeline.chain import text as chain_text
from pipeline.chain.csv_format import CsvFormat
from pipeline.chain.stage import made, make
from pipeline.core import artefacts, files
from pipeline.core.artefacts import Artefact
from pipeline.core.errors import Changed, Forbidden, UserError
from pipeline.images import behaviour

from ..conftest import IMAGES, fresh, pipeline, refused, write_images, write_yaml


def meet(count: int, act) -> list:
    """`act` in so many threads at once; what each returned or raised."""
    found: list = [None] * count

    def run(number: int) -> None:
        try:
            found[number] = act(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def barrier_once(function, barrier: threading.Barrier):
    """The function, which waits once in each thread until all are there, or for a moment if they cannot come."""
    local = threading.local()

    def waiting(*arguments, **named):
        found = function(*arguments, **named)
        if not getattr(local, "waited", False):
            local.waited = True
            with suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=2)
        return found

    return waiting


class TestLocks:
    def test_new_prompts_are_encoded_by_one_of_two_runs_that_meet(self, project_root, monkeypatch):
        """Both have seen that the prompts are new before either begins: the lock lets one encode, one look again."""
        encoded = []
        tasks = [fresh(project_root) for _ in range(2)]
        for task in tasks:
            _ = task.prompts, chain_text.digest(task, "vit")
        original = chain_text._encoded
        monkeypatch.setattr(chain_text, "_encoded", lambda *a: encoded.append(a[3]) or original(*a))
        monkeypatch.setattr(chain_text, "cached", barrier_once(chain_text.cached, threading.Barrier(2)))
        found = meet(2, lambda n: chain_text.of_prompts(tasks[n], "vit", tasks[n].prompts))
        assert [len(prompts) for prompts in encoded] == [12], found
        assert torch.equal(found[0][0].features, found[1][0].features)

    def test_two_submissions_at_once_get_two_numbers(self, project_root, monkeypatch):
        tasks = [fresh(project_root) for _ in range(2)]
        ledgers = [CsvFormat(task).ledger for task in tasks]
        texts = [CsvFormat(task).text([n] * IMAGES) for n, task in enumerate(tasks)]
        barrier = threading.Barrier(2)

        def submit(number: int):
            with ledgers[number].locked():
                same = barrier_once(type(ledgers[number]).same_as, barrier)(ledgers[number], texts[number])
                return same or ledgers[number].add(f"r{number}", texts[number], {})

        paths = meet(2, submit)
        assert sorted(path.name[:3] for path in paths) == ["001", "002"], paths
        assert [line["number"] for line in ledgers[0].log()] == ["1", "2"]

    def test_main_job_numbers_under_the_lock(self, project_root, monkeypatch):
        """Writing a submission takes the lock that the test above takes itself."""
        held = []
        original = csv_format.Ledger.add

        def add(ledger, *arguments):
            with open(ledger.folder / ".lock", "a") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(True)
            return original(ledger, *arguments)

        monkeypatch.setattr(csv_format.Ledger, "add", add)
        main_job.submit(fresh(project_root), "one")
        assert held

    def test_a_lock_whose_file_was_removed_meanwhile_is_not_held(self, tmp_path, monkeypatch):
        """The holder before unlinks the file between our opening it and our locking it: another may hold a new one."""
        path, original = tmp_path / "x.lock", fcntl.flock

        def flock(file, how):
            path.unlink()
            path.touch()
            original(file, how)

        monkeypatch.setattr(files.fcntl, "flock", flock)
        with files.try_lock(path) as mine:
            assert not mine
        assert path.exists(), "the file is another one's lock"

    def test_a_shard_that_another_process_made_meanwhile_is_not_made_again(self, tmp_path, monkeypatch):
        result = Artefact(tmp_path, {"stage": "x"}, ("a", "b"))
        original = artefacts.try_lock

        @contextmanager
        def made_before_it_is_ours(path):
            result.save(0, 2, values=torch.zeros(2))
            with original(path) as mine:
                yield mine

        monkeypatch.setattr(artefacts, "try_lock", made_before_it_is_ours)
        assert list(result.claim(2)) == []


class TestWriting:
    def test_the_content_is_on_disk_before_the_name(self, tmp_path, monkeypatch):
        calls = []
        for name in ("fsync", "replace"):
            original = getattr(os, name)
            monkeypatch.setattr(
                files.os, name, lambda *a, name=name, original=original: calls.append((name, a)) or original(*a)
            )
        with files.atomic_file(tmp_path / "x") as temporary:
            temporary.write_bytes(b"content")
            inode = temporary.stat().st_ino
        assert [name for name, _ in calls] == ["fsync", "replace"]
        assert (tmp_path / "x").stat().st_ino == inode

    @pytest.mark.parametrize("wrong", ["", "id_idx,label\n0,1\n", "id_idx,label\n" + "0,9\n" * IMAGES])
    def test_a_text_that_is_not_right_is_never_written(self, project_root, monkeypatch, wrong):
        monkeypatch.setattr(CsvFormat, "text", lambda *_: wrong)
        with pytest.raises(UserError, match="submission"):
            main_job.submit(fresh(project_root), "one")
        assert not (project_root / "submissions").exists()

    def test_what_is_forbidden_is_not_submitted(self, project_root):
        write_yaml(project_root / "ensembles" / "t.yaml", {"members": {"vit": 1}, "match": "confidence"})
        with refused(Forbidden, "ensembles/t.yaml", "competitions/tiny.yaml"):
            main_job.submit(fresh(project_root), "t")
        assert not (project_root / "submissions").exists() and not (project_root / "cache").exists()


class TestReplaced:
    def test_an_image_that_is_replaced_and_put_back_leaves_nothing(self, project_root, monkeypatch):
        """What was decoded is compared with what the run began with, for later runs find the first file again."""
        write_images(project_root / "other", IMAGES, seed=9)
        task = fresh(project_root)
        _ = task.images_digest()
        file = project_root / "data" / "tiny" / "7.jpg"
        whole = file.read_bytes()
        file.write_bytes((project_root / "other" / "7.jpg").read_bytes())
        with refused(Changed, "7.jpg"):
            make(preprocess.stage(task, "tiny"))
        file.write_bytes(whole)
        again = fresh(project_root)
        assert preprocess.stage(again, "tiny").digest == preprocess.stage(task, "tiny").digest
        assert preprocess.stage(again, "tiny").todo == IMAGES
        made(preprocess.stage(again, "tiny"))

    @pytest.mark.parametrize("policy", ["fill", "fallback"])
    def test_the_same_under_a_policy_that_goes_on(self, project_root, policy):
        recipe = {"images": "data/tiny", "classes": ["Cats", "Dogs", "Big Birds"], "damaged_images": policy}
        write_yaml(project_root / "competitions" / "tiny.yaml", recipe)
        task = fresh(project_root)
        _ = task.images_digest()
        (project_root / "data" / "tiny" / "7.jpg").write_bytes(b"half a download")
        with refused(Changed, "7.jpg"):
            make(preprocess.stage(task, "tiny"))


class TestBehaviour:
    def test_other_pixels_for_the_same_recipe_lose_the_cache_and_equal_ones_keep_it(self, project_root, monkeypatch):
        first = preprocess.stage(fresh(project_root), "tiny")
        assert "behaviour" not in first.made_from, "caches of before stay valid"
        monkeypatch.setattr(behaviour, "_surroundings", lambda: "another library")
        assert preprocess.stage(fresh(project_root), "tiny").digest == first.digest
        monkeypatch.setattr(behaviour, "_surroundings", lambda: "one that resizes otherwise")
        monkeypatch.setattr(behaviour, "fingerprint", lambda recipe, where: "other pixels")
        assert preprocess.stage(fresh(project_root), "tiny").digest != first.digest
        monkeypatch.undo()
        assert preprocess.stage(fresh(project_root), "tiny").digest == first.digest, "back again, found again"

    def test_a_fingerprint_tells_recipes_apart(self, project_root):
        project = fresh(project_root).project
        prints = [behaviour.fingerprint(project.preprocess(name), name) for name in ("tiny", "tiny-sharp", "tiny")]
        assert prints[0] == prints[2] != prints[1]

    def test_a_tower_that_gives_other_features_is_said(self, project_root, capsys):
        task = fresh(project_root)
        features.of_member(task, task.project.member("vit"))
        canary.check(task, "vit", "image", "fp32", lambda: torch.ones(1, 16))
        assert "its image tower gives other features here than those in the cache (cosine " in capsys.readouterr().err

    def test_the_same_tower_is_not(self, project_root, capsys):
        for shard_rows in (2048, 13):
            task = fresh(project_root, shard_rows=shard_rows)
            features.of_member(task, task.project.member("vit"))
            (project_root / "cache" / "tiny").rename(project_root / f"elsewhere-{shard_rows}")
        assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_labels_do_not_depend_on_shards(project_root):
    labels = []
    for rows in ("2048", "13", "1"):
        result = pipeline(project_root, "submit", "--competition", "tiny", "--shard", rows, "--dtype", "fp32")
        assert result.returncode == 0, result.stderr
        labels.append(sorted((project_root / "submissions" / "tiny").glob("0*.csv"))[0].read_bytes())
        (project_root / "cache").rename(project_root / f"cache-{rows}")
    assert len(set(labels)) == 1
    assert len(list((project_root / "submissions" / "tiny").glob("0*.csv"))) == 1, "the same content, one number"


def test_a_shard_that_is_cut_off_in_place_does_not_end_the_process(project_root):
    """A mapped file would: reading beyond its end is a signal that no handler turns into an error."""
    task = fresh(project_root)
    stage = probs.of_member(task, task.project.member("vit"))
    values = stage.rows("probs", 0, IMAGES)
    before = values.clone()
    (file,) = stage.path.glob("*.pt")
    os.truncate(file, 100)
    assert torch.equal(values, before)
