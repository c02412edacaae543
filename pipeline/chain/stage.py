"""A stage of the chain as one declared thing, and the one runner that reuses, locks, shards, resumes and reports.

A `Stage` is an artefact (rows of images in shards, named after the digest of what decides them) that also knows the
stages it is made from and how. Declaring one costs nothing: `make submit`, `plan`, `clean-cache` and the report walk
the same stages, and only `make` computes.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..cluster.pool import Pool, Shard
from ..core import console
from ..core.artefacts import Artefact
from ..core.digests import FORMAT
from ..core.errors import Unavailable
from ..core.store import Url
from .task import Task

PIXELS = "images"  # the stage of pixels
Advance = Callable[[int], object]  # tells the progress bar of so many more rows
Then = Callable[[int, int], object]  # hears of rows that were computed just now


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
    its inputs itself, while it reads them. Of a `rowwise` one a row needs no more than that row of the inputs, and
    `begin` nothing of them: inputs that are as cheap are made along with it, a shard of each at a time.
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
    rowwise: bool = False
    handed: dict[tuple[int, int], dict] = field(default_factory=dict)  # the shard that is made, for what is made of it

    def rows(self, key: str, start: int, stop: int, into: Any = None) -> Any:
        """As Artefact.rows; what was computed just now is not read again."""
        if into is None and (start, stop) in self.handed:
            return self.handed[start, stop][key]
        return super().rows(key, start, stop, into)

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


@dataclass
class Making:
    """A stage of which `gaps` are being made, from rows `above` that were made for it; `seconds` went into it alone."""

    stage: Stage
    work: Work
    above: int
    gaps: set[tuple[int, int]]
    seconds: float
    done: int = 0

    def along(self, start: int, stop: int) -> None:
        """Make what is missing of these rows, which something else is made of; whoever comes first does."""
        gap = start, stop
        for first, last in [gap] if gap in self.gaps else self.stage.missing(self.stage.shard_rows, *gap):
            with self.stage.claimed(first, last) as mine:
                if mine:
                    self.make(first, last, lambda rows: None)

    def make(self, start: int, stop: int, advance: Advance) -> None:
        began = time.perf_counter()
        values = self.work.rows(start, stop, advance)
        if values is not None:
            self.stage.save(start, stop, **values)
            self.stage.handed[start, stop] = values
        self.done += stop - start
        self.seconds += time.perf_counter() - began

    def end(self) -> None:
        """All of it is there: seal it, and tell."""
        self.stage.seal()
        # others may have done it all; what this process did above is told even then
        told = self.done or self.above
        message = self.work.told(self.done, self.seconds) if told else self.stage.reused
        if message:
            console.say(self.stage.verb, self.stage.subject, message)


def make(stage: Stage, then: Then = lambda start, stop: None) -> int:
    """Compute what is missing of a stage, and of those above what that needs; returns the rows computed here.

    `then` hears of them while they are in memory, as far as this process makes them.
    """
    if not stage.missing(stage.shard_rows):
        if stage.reused:
            stage.task.say_once(stage.verb, stage.subject, stage.reused)
        return 0
    by_cluster = stage.task.ray and stage.made_from["stage"] != PIXELS
    if by_cluster or (console.rank() and not stage.shared):  # of several processes the first does the rest
        above = 0 if stage.streams else sum(make(one) for one in stage.inputs)
        return _made_on_a_cluster(stage, above) if by_cluster else 0
    with contextlib.ExitStack() as open_works:
        making = _begin(stage, open_works)
        _make(making, then)
    for one in making:
        one.end()
    return making[-1].done


def _begin(stage: Stage, open_works: contextlib.ExitStack) -> list[Making]:
    """The stage with its work begun, after those of its inputs that are made along with it; the others are made."""
    began, gaps = time.perf_counter(), set(stage.missing(stage.shard_rows))
    making: list[Making] = []
    above, elsewhere = 0, 0.0
    for one in () if stage.streams else stage.inputs:
        first = time.perf_counter()
        if stage.rowwise and _comes_along(one, gaps):
            making += _begin(one, open_works)
        else:
            above += make(one)
        if not one.shared:  # it says itself how long it took; of features whoever asked for them does
            elsewhere += time.perf_counter() - first
    work = open_works.enter_context(contextlib.closing(stage.begin(above)))
    return [*making, Making(stage, work, above, gaps, time.perf_counter() - began - elsewhere)]


def _comes_along(one: Stage, gaps: set[tuple[int, int]]) -> bool:
    """Whether an input lacks some of these rows and no others, and needs no more for it than what is there."""
    own = set(one.missing(one.shard_rows))
    return (
        bool(own)
        and own <= gaps
        and not one.shared
        and all(not above.shared or not above.missing(above.shard_rows) for above in one.inputs)
    )


def _make(making: list[Making], then: Then) -> None:
    """Compute and save shards of the last one, each after those of the others, as long as there are some to take up."""
    *along, last = making
    stage = last.stage
    rank, world = (console.rank(), console.world()) if stage.shared else (0, 1)
    with console.progress(f"{stage.verb} {stage.subject}", "image", hidden=not stage.shared) as bar:
        for start, stop, left, following in stage.claim(stage.shard_rows, rank, world):
            bar.total = last.done + left
            if following:
                last.work.expect(*following)
            for one in along:
                one.along(start, stop)
            last.make(start, stop, bar.update)
            then(start, stop)
            for one in making:
                one.stage.handed.clear()


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
