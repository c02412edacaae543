"""Stage preprocess: image files -> uint8 pixels of one preprocess recipe, in cache/<competition>/images/."""

from pathlib import Path

from ..core.digests import FileDigests
from ..images import behaviour, views
from ..images.ops import files
from .feeding import Feed
from .stage import Advance, Stage, Work, declare
from .task import Task


def stage(task: Task, name: str) -> Stage:
    """`pixels` uint8 (N, 3, S, S) of the images, with V views (N, V, 3, S, S); shards are as large as without views."""
    recipe, where = task.project.preprocess(name), task.project.where("preprocess", name)
    made_from = {"preprocess": recipe.content(), "images": task.images_digest(), "decode": task.policy.content()}
    if networks := files(recipe, task.project.root, where):
        made_from["networks"] = _contents(task, networks)
    elif changed := task.once(("behaviour", name), lambda: behaviour.changed(recipe, where, _memo(task))):
        made_from["behaviour"] = changed
    seen = views.count(recipe, where)
    return declare(
        task,
        "images",
        name,
        made_from,
        verb="preprocess",
        begin=lambda _: Pixels(task, name),
        reused=f"{len(task.images.ids)} images reused",
        row_bytes=seen * 3 * recipe.size**2,
        shard_rows=max(1, task.shard_rows // seen),
        shared=True,
    )


def _memo(task: Task) -> Path:
    """Where it is remembered what recipes made of the images that are kept for that."""
    return task.project.root / "cache" / "behaviour.json"


def _contents(task: Task, networks: list[Path]) -> list[str]:
    """Content digests of the networks that a recipe runs: other weights give other pixels."""
    with FileDigests(task.project.root / "cache" / "weights.json") as digests:
        return [digests.of(path) for path in networks]


class Pixels(Work):
    """The work of the stage: decoding, which saves what it made."""

    def __init__(self, task: Task, name: str):
        self.task, self.feed = task, Feed(stage(task, name))

    def expect(self, start: int, stop: int) -> None:
        self.feed.expect(start, stop)

    def rows(self, start: int, stop: int, advance: Advance) -> None:
        for batch in self.feed.batches(start, stop):
            advance(len(batch))

    def close(self) -> None:
        self.feed.close()

    def told(self, rows: int, seconds: float) -> str:
        reused = len(self.task.images.ids) - rows
        return f"{rows} images in {seconds:.1f} s" + (f", {reused} reused" if reused else "")
