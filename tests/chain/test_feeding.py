"""Pixels made ready ahead: the same ones in the same order, whatever is expected, cached, damaged or stopped."""

import shutil
import threading
from concurrent.futures import Future

import pytest
import torch
from PIL import Image

from pipeline.chain import damage, features, feeding, preprocess
from pipeline.chain.feeding import Feed
from pipeline.chain.stage import make
from pipeline.core import artefacts
from pipeline.core.errors import Damaged, Unavailable
from pipeline.images.decoding import decode
from pipeline.images.ops import OPS, compile_recipe

from ..conftest import IMAGES, fresh, refused, write_yaml

PATIENCE = 30  # seconds


@pytest.fixture
def right(project_root) -> torch.Tensor:
    """Pixels of all images, each decoded on its own."""
    task = fresh(project_root)
    apply = compile_recipe(task.project.preprocess("tiny"), "tiny")
    return torch.stack([torch.from_numpy(apply(decode(path))) for path in task.images.paths()])


@pytest.fixture
def feed(project_root):
    """Makes feeds, and closes them."""
    made = []

    def of(**settings) -> Feed:
        made.append(Feed(preprocess.stage(fresh(project_root, **settings), "tiny")))
        return made[-1]

    yield of
    for one in made:
        one.close()


def taken(feed: Feed, spans: list[tuple[int, int]], expected: list) -> list[torch.Tensor]:
    """The batches of the spans, each with what is expected to follow it."""
    found = []
    for span, following in zip(spans, expected, strict=True):
        if following:
            feed.expect(*following)
        found += [batch.clone() for batch in feed.batches(*span)]
    return found


def seen(monkeypatch, barrier=lambda row: None) -> list[int]:
    """The rows that are decoded from now on."""
    rows, original = [], damage.picture

    def picture(task, row, draft_size):
        barrier(row)
        rows.append(row)
        return original(task, row, draft_size)

    monkeypatch.setattr(damage, "picture", picture)
    return rows


SPANS = [(0, 9), (9, 18), (18, IMAGES)]


@pytest.mark.parametrize("expected", ["nothing", "the next", "another"])
def test_pixels_are_right_whatever_is_expected(feed, right, expected):
    following = {"nothing": [None] * 3, "the next": [*SPANS[1:], None], "another": [SPANS[2], SPANS[0], SPANS[1]]}
    for _ in ("decoded", "cached"):
        batches = taken(feed(shard_rows=9, batch_size=4, workers=3), SPANS, following[expected])
        assert torch.equal(torch.cat(batches), right)
        assert [len(batch) for batch in batches] == [4, 4, 1, 4, 4, 1, 4, 1]


def test_parts_that_are_cached_and_parts_that_are_not(feed, right, monkeypatch):
    taken(feed(shard_rows=5), [(5, 10), (20, IMAGES)], [None, None])
    rows = seen(monkeypatch)
    assert torch.equal(torch.cat(taken(feed(shard_rows=5), [(0, IMAGES)], [None])), right)
    assert sorted(rows) == [*range(5), *range(10, 20)]
    assert torch.equal(torch.cat(taken(feed(shard_rows=7), [(0, IMAGES)], [None])), right)
    assert len(rows) == 15, "all of it is cached now"


def test_the_next_shard_is_decoded_while_the_caller_is_busy(feed, monkeypatch):
    rows, one = seen(monkeypatch), feed(shard_rows=9, batch_size=4)
    one.expect(9, 18)
    batches = one.batches(0, 9)
    next(batches)  # and the caller is busy with it
    one.ahead.parts[0].file.result(timeout=PATIENCE)
    assert sorted(rows) == list(range(18))
    assert [start for start, *_ in one.stage.shards()] == [0, 9], "both are saved"


def test_what_is_ready_of_the_next_shard_is_given_without_waiting_and_once(feed, right, monkeypatch):
    held, first = threading.Event(), 4
    seen(monkeypatch, lambda row: row < first + feeding.GROUP or held.wait(PATIENCE))
    one = feed(shard_rows=IMAGES, batch_size=4, workers=1)
    assert not list(one.ready())
    one.expect(first, IMAGES)
    list(one.batches(0, first))
    one.ahead.parts[0].groups[0].result(timeout=PATIENCE)
    ready = [batch.clone() for batch in one.ready()]
    assert torch.equal(torch.cat(ready), right[first : first + feeding.GROUP])
    held.set()
    rest = list(one.batches(first, IMAGES, skip=feeding.GROUP))
    assert torch.equal(torch.cat(rest), right[first + feeding.GROUP :])


def test_what_is_expected_waits_for_what_comes_before(feed, monkeypatch):
    """One thread takes images in their order, so the tower never waits for those of the next shard."""
    rows = seen(monkeypatch)
    taken(feed(shard_rows=9, workers=1), SPANS, [*SPANS[1:], None])
    assert rows == list(range(IMAGES))


def test_two_shards_of_memory_are_enough_for_all(feed):
    one, slots = feed(shard_rows=4, batch_size=2), set()
    spans = [(start, min(start + 4, IMAGES)) for start in range(0, IMAGES, 4)]
    for span, following in zip(spans, [*spans[1:], None], strict=True):
        if following:
            one.expect(*following)
        slots |= {batch.untyped_storage().data_ptr() for batch in one.batches(*span)}
    assert len(slots) == 2
    sizes = [file.stat().st_size for _, _, file in one.stage.shards()]
    assert sizes[-1] < sizes[0], "the last shard is written without the rest of its memory"


def test_another_shard_than_expected_loses_nothing(feed, right, monkeypatch):
    """Another process took it: what was begun ends, and its memory is used for what comes."""
    one = feed(shard_rows=9, batch_size=4, workers=1)
    found = taken(one, [SPANS[0], SPANS[2], SPANS[1]], [SPANS[1], SPANS[0], None])
    assert torch.equal(torch.cat([*found[:3], *found[5:], *found[3:5]]), right)


def test_a_shard_that_cannot_be_written_ends_the_run(project_root, monkeypatch):
    def full(*arguments, **values):
        raise OSError("no space left")

    task = fresh(project_root, shard_rows=9)
    monkeypatch.setattr(artefacts, "save", full)
    with pytest.raises(OSError, match="no space left"):
        make(preprocess.stage(task, "tiny"))


def test_a_cached_shard_that_is_damaged_is_said_and_decoded_again(feed, right, capsys):
    one = feed(shard_rows=9)
    taken(one, SPANS, [None] * 3)
    files = [file for _, _, file in one.stage.shards()]
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:5000] + b"x" + whole[5001:])
    assert torch.equal(torch.cat(taken(feed(shard_rows=23), [(0, IMAGES)], [None])), right)
    assert f"{files[1]} is damaged and is computed again" in capsys.readouterr().out
    assert files[1].read_bytes() == whole


def test_a_cached_shard_is_checked_once_each_time_it_is_used(project_root, monkeypatch):
    task = fresh(project_root, shard_rows=9)
    make(preprocess.stage(task, "tiny"))
    checked, original = [], artefacts.zipfile.ZipFile.testzip
    monkeypatch.setattr(
        artefacts.zipfile.ZipFile, "testzip", lambda archive: checked.append(archive.filename) or original(archive)
    )
    features.of_member(task, task.project.member("vit"))
    pixels = [name for name in checked if "/images/" in str(name)]
    assert len(pixels) == len(set(pixels)) == 3


def test_damage_in_a_shard_that_nobody_asks_for_stops_nobody(project_root, feed, right):
    path = project_root / "data" / "tiny" / "20.jpg"
    path.write_bytes(path.read_bytes()[:200])
    one = feed(shard_rows=9)
    assert torch.equal(torch.cat(taken(one, SPANS[:2], [SPANS[1], SPANS[2]])), right[:18])
    with refused(Damaged, "20.jpg"):
        taken(one, SPANS[2:], [None])
    assert [start for start, *_ in one.stage.shards()] == [0, 9]


def test_who_stops_midway_leaves_no_thread_and_no_part_of_a_shard(feed, monkeypatch):
    """As Ctrl-C does: what is being decoded ends, the rest is not begun, and nothing of it is saved."""
    held, begun = threading.Event(), threading.Event()

    def barrier(row: int) -> None:
        if row >= feeding.GROUP:
            begun.set()
            held.wait(PATIENCE)

    before = set(threading.enumerate())
    rows = seen(monkeypatch, barrier)
    one = feed(shard_rows=IMAGES, batch_size=feeding.GROUP, workers=1)
    batches = one.batches(0, IMAGES)
    next(batches)
    assert begun.wait(PATIENCE)
    threading.Timer(0.2, held.set).start()
    batches.close()
    one.close()
    assert rows == list(range(2 * feeding.GROUP)), "what had not begun is not done"
    assert not [thread for thread in set(threading.enumerate()) - before if "ThreadPool" in thread.name]
    assert one.stage.shards() == []


def test_processes_give_the_same_pixels_and_the_same_record(project_root, feed, monkeypatch):
    folder = project_root / "data" / "tiny"
    whole = (folder / "4.jpg").read_bytes()
    (folder / "4.jpg").write_bytes(whole[: len(whole) - 60])
    (folder / "11.jpg").write_bytes(b"no image")
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "12.gif", save_all=True, append_images=frames[1:])
    (folder / "12.jpg").unlink()
    recipe = project_root / "competitions" / "tiny.yaml"
    recipe.write_text(recipe.read_text() + "damaged_images: fallback\nrules: {test_set: true}\n")
    threads = feed(shard_rows=9, batch_size=4, workers=2)
    expected = torch.cat(taken(threads, SPANS, [*SPANS[1:], None]))
    records = damage.recorded(threads.task, ["tiny"])
    assert len(records) == 3
    shutil.rmtree(project_root / "cache")
    monkeypatch.setattr(feeding, "MANY", 0)
    by_processes = feed(shard_rows=9, batch_size=4, workers=2)
    assert torch.equal(torch.cat(taken(by_processes, SPANS, [*SPANS[1:], None])), expected)
    assert damage.recorded(by_processes.task, ["tiny"]) == records
    assert 1 <= len(by_processes.processes) <= 2
    assert torch.equal(torch.cat(taken(feed(shard_rows=9), SPANS, [None] * 3)), expected), "and they are kept"


def test_a_damaged_image_stops_processes_as_it_stops_threads(project_root, feed, right, monkeypatch):
    monkeypatch.setattr(feeding, "MANY", 0)
    path = project_root / "data" / "tiny" / "20.jpg"
    path.write_bytes(path.read_bytes()[:200])
    one = feed(shard_rows=9, workers=2)
    assert torch.equal(torch.cat(taken(one, SPANS[:2], [SPANS[1], SPANS[2]])), right[:18])
    with refused(Damaged, "20.jpg"):
        taken(one, SPANS[2:], [None])
    assert [start for start, *_ in one.stage.shards()] == [0, 9]


def test_a_process_that_is_killed_ends_the_run_and_the_next_goes_on(feed, right, monkeypatch):
    monkeypatch.setattr(feeding, "MANY", 0)
    one = feed(shard_rows=9, workers=2)
    assert torch.equal(torch.cat(taken(one, SPANS[:1], [None])), right[:9])
    for process in one.processes:
        process.process.kill()
        process.process.wait()
    with refused(Unavailable, "signal 9", "WORKERS"):
        taken(one, SPANS[1:2], [None])
    one.close()
    monkeypatch.undo()
    assert torch.equal(torch.cat(taken(feed(shard_rows=9), SPANS, [None] * 3)), right)


@pytest.mark.parametrize(
    ("settings", "todo", "helped"),
    [
        ({"workers": 2}, feeding.MANY, True),
        ({"workers": 2}, feeding.MANY - 1, False),
        ({"workers": 1}, feeding.MANY, False),
    ],
)
def test_many_images_are_decoded_by_processes(project_root, settings, todo, helped):
    assert feeding.in_processes(fresh(project_root, **settings), "tiny", todo) is helped


def test_large_images_and_networks_are_not_decoded_by_processes(project_root, monkeypatch):
    two, many = fresh(project_root, workers=2), fresh(project_root, workers=200)
    for path in two.images.paths():
        with open(path, "ab") as file:
            file.truncate(2 * feeding.SMALL + 1)
    assert not feeding.in_processes(two, "tiny", feeding.MANY)
    assert feeding.in_processes(many, "tiny", feeding.MANY), "so many threads wait for each other even then"
    monkeypatch.setattr(feeding, "files", lambda *_: ["network.pth"])
    assert not feeding.in_processes(many, "tiny", feeding.MANY)


@pytest.mark.parametrize("group", [feeding.GROUP, feeding.GROUP_OF_PROCESS])
def test_rows_are_ready_when_the_groups_that_they_are_in_are(group):
    groups = [Future() for _ in range(3)]
    part = feeding.Part(100, 100 + 3 * group, Future(), groups, group)
    assert not part.ready(100 + 1)
    groups[0].set_result(([], []))
    assert part.ready(100 + 1) and part.ready(100 + group) and not part.ready(100 + group + 1)
    groups[1].set_result(([(0, Damaged("x"))], []))
    assert part.ready(100 + group) and not part.ready(100 + group + 1), "an error waits for its turn"


def test_an_op_that_a_script_registered_is_run_by_threads(project_root, monkeypatch):
    """No other process knows it."""

    def mirrored(image: Image.Image, size: int) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    monkeypatch.setitem(OPS, "mirrored", mirrored)  # and out of it again
    OPS.register(mirrored)
    write_yaml(project_root / "preprocess" / "own.yaml", {"size": 32, "ops": [{"resize": "squash"}, "mirrored"]})
    task = fresh(project_root, workers=2)
    assert feeding.in_processes(task, "tiny", feeding.MANY)
    assert not feeding.in_processes(task, "own", feeding.MANY)


def test_without_memory_that_can_be_shared_threads_decode(feed, right, monkeypatch):
    def refused_by_a_sandbox(*_):
        raise OSError("not permitted")

    monkeypatch.setattr(feeding, "MANY", 0)
    monkeypatch.setattr("os.memfd_create", refused_by_a_sandbox)
    one = feed(shard_rows=9, workers=2)
    assert torch.equal(torch.cat(taken(one, SPANS, [None] * 3)), right)
    assert one.processes == []
