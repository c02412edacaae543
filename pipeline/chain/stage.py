"""A stage of the chain as one declared thing, and the one runner that reuses, locks, shards, resumes and reports.

A `Stage` is an artefact (rows of images in shards, named after the digest of what decides them) that also knows the
stages it is made from and how. Declaring one costs nothing: `make submit`, `plan`, `clean-cache` and the report walk
the same stages, and only `make` computes.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..cluster.pool import Pool, Shard
from ..core import console
from ..core.artefacts import Artefact
from ..core.digests import FORMAT
from ..core.errors import Unavailable
from ..core.store import Url
from .task import Task

PIXELS = "images"  # the stage of pixels
Advance = Callable[[int], object]  # tells the progress bar of so many more rows


class Work(Protocol):
    """A stage that is being computed, with all that it needs in memory."""

    def expect(self, start: int, stop: int) -> None:
        """Images start..stop will probably come after those that come now: they may be begun beforehand."""

    def rows(self, start: int, stop: int, advance: Advance) -> dict | None:
        """The values to save of images start..stop; None when they were saved on the way."""

    def close(self) -> None:
        """Nothing more is asked for, however it ended."""

    def told(self, rows: int, seconds: float) -> str:
        """The line about `rows` computed in so many seconds; '' for none. 0 rows: others did them meanwhile."""


@dataclass(frozen=True, eq=False)
class Stage(Artefact):
    """What one stage makes of a task's images, computed or not.

    `begin(rows)` loads what the work needs once the `inputs` are there; `rows` is how many of theirs were computed for
    it. A `shared` stage is computed by all processes of a launcher, the others by the first. One that `streams` makes
    its inputs itself, while it reads them.
    """

    task: Task
    verb: str
    subject: str
    begin: Callable[[int], Work]
    inputs: tuple["Stage", ...] = ()
    reused: str = ""
    row_bytes: int = 0
    shard_rows: int = 0
    shared: bool = False
    streams: bool = False

    @property
    def todo(self) -> int:
        """Rows that are not computed yet."""
        return sum(stop - start for start, stop in self.missing(self.shard_rows))

    def walk(self) -> Iterator["Stage"]:
        """All stages that this one is made from, each once and before what is made from it; it is the last."""
        yield from {one.path: one for above in self.inputs for one in above.walk()}.values()
        yield self


def declare(task: Task, kind: str, subject: str, made_from: dict, **more) -> Stage:
    """The stage whose artefacts lie in cache/<task>/<kind>/<subject>/, or there below CACHE."""
    content = {"stage": kind, "format": FORMAT, **made_from}
    more = {"shard_rows": task.shard_rows} | more
    # pixels are many, and each machine makes its own; the rest may lie in a store that machines share
    kept = task.cache if kind == PIXELS else task.kept / task.cache.relative_to(task.project.root / "cache")
    return Stage(kept / kind / subject, content, task.images.ids, task, subject=subject, **more)


def make(stage: Stage) -> int:
    """Compute what is missing of a stage, and of those above what that needs; returns the rows computed here."""
    if not stage.missing(stage.shard_rows):
        if stage.reused:
            stage.task.say_once(stage.verb, stage.subject, stage.reused)
        return 0
    began = time.perf_counter()
    above = 0 if stage.streams else sum(make(one) for one in stage.inputs)
    if stage.task.ray and stage.made_from["stage"] != PIXELS:
        return _made_on_a_cluster(stage, above)
    if console.rank() and not stage.shared:
        return 0  # the first process does the rest
    rank, world = (console.rank(), console.world()) if stage.shared else (0, 1)
    with contextlib.closing(stage.begin(above)) as work:
        done = _work(stage, work, rank, world)
    stage.seal()
    # others may have done it all; what this process did above is told even then
    message = work.told(done, time.perf_counter() - began) if done or above else stage.reused
    if message:
        console.say(stage.verb, stage.subject, message)
    return done


def _work(stage: Stage, work: Work, rank: int, world: int) -> int:
    """Compute and save shards as long as there are some to take up; returns the rows."""
    done = 0
    with console.progress(f"{stage.verb} {stage.subject}", "image", hidden=not stage.shared) as bar:
        for start, stop, left, following in stage.claim(stage.shard_rows, rank, world):
            bar.total = done + left
            if following:
                work.expect(*following)
            values = work.rows(start, stop, bar.update)
            if values is not None:
                stage.save(start, stop, **values)
            done += stop - start
    return done


def _made_on_a_cluster(stage: Stage, above: int) -> int:
    """The rest of `make` with LAUNCH=ray: what loads a tower begins in each actor, what is small begins here."""
    begin = functools.partial(Begun, stage, None if stage.shared else stage.begin(above))
    gaps, done = stage.missing(stage.shard_rows), 0
    for start, stop, _ in cluster(stage.task).run(f"{stage.verb} {stage.subject}", stage.digest, begin, gaps):
        done += stop - start
    if stage.missing(stage.shard_rows):
        raise Unavailable(
            f"{stage.path}: shards that other machines wrote are not seen here; give CACHE=, a URL or a shared folder"
        )
    stage.seal()
    return done


def cluster(task: Task) -> Pool:
    """The actors of a run with LAUNCH=ray."""
    assert task.ray
    return task.once(("cluster",), lambda: Pool(task.ray, task.workers))


class Begun:
    """In an actor: makes and keeps the rows start..stop of a stage, told which ones will probably be next."""

    def __init__(self, stage: Stage, work: Work | None):
        vars(stage.task).pop("device", None)  # that of the driver
        self.stage, self.work = stage, work or stage.begin(0)
        self.expected: Shard | None = None

    def __call__(self, start: int, stop: int, following: Shard | None) -> None:
        if self.stage.has(start, stop):
            return
        if following:
            self.work.expect(*following)
        values = self.work.rows(start, stop, lambda rows: None)
        if values is not None:
            self.stage.save(start, stop, **values)
        self._drop((start, stop))
        if self.expected != (start, stop):
            self._drop(self.expected)  # another actor took it
        self.expected = following

    def close(self) -> None:
        self.work.close()
        self._drop(self.expected)

    def _drop(self, shard: Shard | None) -> None:
        """With a store the pixels of this machine go: nobody asks for them again."""
        if shard and self.stage.streams and isinstance(self.stage.folder, Url):
            for pixels in self.stage.inputs:
                pixels.drop(*shard)


def made(stage: Stage) -> Stage:
    """The stage, computed."""
    make(stage)
    return stage
