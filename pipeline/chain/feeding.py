"""Pixels ahead of whoever takes them: while one shard is encoded the next is read or decoded, and the last one saved.

All of it happens in threads: Pillow, checksums and files are worked on outside the interpreter lock. Of small images
little is left to do there; where they are many each thread has a process that decodes for it.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..core.errors import Changed, UserError
from ..images.ops import compile_recipe, files, known_everywhere
from ..images.problems import Errors, Problem, prepared
from ..images.processes import Decoder, Memory, Wanted, Way
from . import damage
from .copies import Sending
from .stage import Stage
from .task import Task

GROUP = 8  # images that a thread decodes at a time: fewer hand-overs, and a batch still has work for many threads
GROUP_OF_PROCESS = 32  # and one with a process, which has to be asked, and all of whose images are small
MANY = 4096  # images: to start processes takes as long as decoding some thousand small ones
SMALL = 20_000  # bytes of a file for each thread: of larger ones so many threads do not wait for each other
SAMPLE = 64  # files whose sizes are looked at


def in_processes(task: Task, name: str, todo: int) -> bool:
    """Whether so many images are better decoded by processes: they are many and small, and lie in files here."""
    if task.threads == 1 or todo < MANY or not hasattr(os, "memfd_create") or not sys.executable:
        return False
    recipe, where = task.project.preprocess(name), task.project.where("preprocess", name)
    if files(recipe, task.project.root, where) or not known_everywhere(recipe, where):
        return False  # a network is loaded once
    total = len(task.images.ids)
    found = [task.images.file(row) for row in range(0, total, max(1, total // SAMPLE))]
    sizes = [os.path.getsize(file) for file in found if file and os.path.isfile(file)]
    return None not in found and sum(sizes) <= SMALL * task.threads * len(sizes)


@dataclass
class Part:
    """Rows first..last that are decoded, or read where there are no `groups` of images; `file` ends with it, saved."""

    first: int
    last: int
    file: Future
    groups: list[Future] = field(default_factory=list)
    group: int = GROUP

    def batches(self, size: int) -> Iterator[tuple[int, int, Errors]]:
        """Rows first..last that are ready, and what went wrong with them or some that follow."""
        errors, ready = [], self.first if self.groups else self.last
        if not self.groups:
            errors = self.file.result()
        groups = iter(self.groups)
        for first in range(self.first, self.last, size):
            last = min(first + size, self.last)
            while ready < last:
                errors, ready = errors + next(groups).result()[0], ready + self.group
            yield first, last, errors

    def ready(self, last: int) -> bool:
        """Whether the rows before `last` are ready by now, and nothing went wrong with them."""
        jobs = self.groups[: -(-(last - self.first) // self.group)] or [self.file]
        if not all(job.done() and not job.cancelled() and not job.exception() for job in jobs):
            return False
        return not any(job.result()[0] if self.groups else job.result() for job in jobs)


@dataclass
class Span:
    """Rows start..stop on their way into `pixels`, which lie in a `slot` of memory that is used again."""

    start: int
    stop: int
    slot: Tensor
    parts: list[Part] = field(default_factory=list)

    def pixels(self, first: int, last: int) -> Tensor:
        return self.slot[first - self.start : last - self.start]

    def cancel(self) -> None:
        """Do nothing more for it, and wait for what has begun."""
        jobs = [job for part in self.parts for job in (*part.groups, part.file)]
        for job in jobs:
            job.cancel()
        wait(jobs)


class Feed:
    """The pixels of one preprocess recipe, shard after shard; to be closed. A GPU may be `sending` for them."""

    def __init__(self, stage: Stage, sending: Sending | None = None):
        self.stage, self.task, self.name = stage, stage.task, stage.subject
        self.sending = sending or Sending(torch.device("cpu"))
        self.decoders, self.files = ThreadPoolExecutor(self.task.threads), ThreadPoolExecutor(1)
        self.spare: list[tuple[Tensor, torch.cuda.Event | None]] = []  # memory, and what is still copied from it
        self.processes: list[Decoder] = []  # those that no thread uses now
        self.following: tuple[int, int] | None = None
        self.ahead: Span | None = None

    @cached_property
    def apply(self):
        recipe = self.task.project.preprocess(self.name)
        return compile_recipe(recipe, self.task.project.where("preprocess", self.name), self.task.place)

    @cached_property
    def memory(self) -> Memory | None:
        """What is shared with the processes that decode, one for each thread, if they do."""
        todo = sum(stop - start for start, stop in self.stage.missing(self.stage.shard_rows, checked=False))
        if not in_processes(self.task, self.name, todo):
            return None
        try:
            memory = Memory()
        except OSError:  # a sandbox may have none; threads need none
            return None
        self.task.say_once("preprocess", self.name, f"many small images: decoded by {self.task.threads} processes")
        return memory

    @property
    def group(self) -> int:
        """Images that are decoded at a time."""
        return GROUP_OF_PROCESS if self.memory else GROUP

    def close(self) -> None:
        """End all threads and processes; what is being written is written whole."""
        self.decoders.shutdown(cancel_futures=True)
        self.files.shutdown(cancel_futures=True)
        for process in self.processes:
            process.close()
        if memory := vars(self).get("memory"):
            memory.close()

    def expect(self, start: int, stop: int) -> None:
        """These rows will probably be asked for after the next ones."""
        self.following = start, stop

    def batches(self, start: int, stop: int, skip: int = 0) -> Iterator[Tensor]:
        """Pixels of images start..stop, uint8 (B, 3, S, S) at a time, each good until the next `batches`.

        With V views (B, V, 3, S, S); without the first `skip` rows, which were taken when they were `ready`. What was
        decoded is in the cache when it ends. Under a strict policy a damaged image ends it, with an error that names
        all damaged ones from there on; under one that falls back its pixels are black.
        """
        span, self.ahead = self._begun(start, stop), None
        if self.following:
            self.ahead, self.following = self._begin(*self.following), None
        for part in span.parts:
            for first, last, errors in part.batches(self.task.batch):
                if errors:
                    span.cancel()
                    raise self._refusal(first)
                if last > start + skip:
                    yield span.pixels(first, last)
            part.file.result()
        self._spare(span)

    def ready(self) -> Iterator[Tensor]:
        """The first batches of the rows that are expected, as long as nobody has to wait for them."""
        part = self.ahead.parts[0] if self.ahead else None
        for first in range(part.first, part.last, self.task.batch) if part else ():
            last = min(first + self.task.batch, part.last)
            if not part.ready(last):
                return
            yield self.ahead.pixels(first, last)

    def _spare(self, span: Span) -> None:
        self.spare.append((span.slot, self.sending.sent))

    def _refusal(self, first: int) -> UserError:
        """For all images from row `first` on that cannot be decoded."""
        if self.ahead:
            self.ahead.cancel()
        total = len(self.stage.ids)
        found = self.decoders.map(lambda row: self._decoded(row, min(row + GROUP, total)), range(first, total, GROUP))
        return damage.refusal(self.task, (error for errors, _ in found for error in errors))

    def _begun(self, start: int, stop: int) -> Span:
        """The span of these rows, which are on their way already if they were expected."""
        if self.ahead:
            if (self.ahead.start, self.ahead.stop) == (start, stop):
                return self.ahead
            self.ahead.cancel()  # another process took them
            self._spare(self.ahead)
        return self._begin(start, stop)

    def _begin(self, start: int, stop: int) -> Span:
        span, at = Span(start, stop, self._slot(stop - start)), start
        for first, last in [*self.stage.missing(self.stage.shard_rows, start, stop, checked=False), (stop, stop)]:
            if at < first:
                span.parts.append(Part(at, first, self.files.submit(self._read, span.pixels(at, first), at, first)))
            if first < last:
                groups = self._decoding(span.pixels(first, last), first, last)
                file = self.files.submit(self._keep, span.pixels(first, last), first, last, groups)
                span.parts.append(Part(first, last, file, groups, self.group))
            at = last
        return span

    def _slot(self, rows: int) -> Tensor:
        """Memory for so many rows; a GPU copies from it while the tower computes."""
        fitting = next((number for number, (slot, _) in enumerate(self.spare) if len(slot) >= rows), None)
        if fitting is not None:
            slot, sent = self.spare.pop(fitting)
            if sent:
                sent.synchronize()  # long since, unless what was expected did not come
            return slot
        self.spare.clear()
        recipe = self.task.project.preprocess(self.name)
        each = self.stage.row_bytes // (3 * recipe.size**2)
        shape = (rows, *([each] if recipe.views else []), 3, recipe.size, recipe.size)
        on_gpu = self.sending.stream is not None
        if self.memory and not on_gpu:
            # one size for all: it lasts as long as the processes do
            return torch.from_numpy(self.memory.array(max(rows, self.stage.shard_rows), *shape[1:]))
        return torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu)

    def _decoding(self, pixels: Tensor, first: int, last: int) -> list[Future]:
        _ = self.apply  # mistakes of the recipe are told before anything is decoded
        return [
            self.decoders.submit(self._decoded, row, min(row + self.group, last), pixels[row - first :])
            for row in range(first, last, self.group)
        ]

    def _decoded(self, first: int, last: int, into: Tensor | None = None) -> tuple[Errors, list[Problem]]:
        """Decode images first..last, without keeping them where there is nothing to keep them in."""
        if into is not None and self.memory:
            return self._by_a_process(first, last, into[: last - first].numpy())
        recipe = self.task.project.preprocess(self.name)

        def put(row: int, pixels) -> None:
            if into is not None:
                into[row - first] = torch.from_numpy(pixels)

        return prepared(
            range(first, last),
            lambda row: damage.picture(self.task, row, recipe.draft_size),
            self.apply,
            recipe.size,
            put,
        )

    def _by_a_process(self, first: int, last: int, into: np.ndarray) -> tuple[Errors, list[Problem]]:
        """The same by a process, into the memory that is shared with it."""
        images, known = self.task.images, self.task.contents()
        wanted = [Wanted(row, images.file(row), images.ids[row], known[row]) for row in range(first, last)]
        try:
            process = self.processes.pop()
        except IndexError:  # all are at work, so there are fewer than threads
            project = self.task.project
            way = Way(project.preprocess(self.name), project.where("preprocess", self.name), self.task.policy)
            process = Decoder(way, self.memory)
        try:
            return process.prepare(wanted, into)
        finally:
            self.processes.append(process)

    def _keep(self, pixels: Tensor, first: int, last: int, groups: list[Future]) -> Errors:
        """Save what `groups` decode; what cannot be decoded, of which nothing is saved."""
        done = [group.result() for group in groups]
        errors = [error for errors, _ in done for error in errors]
        if not errors:
            # first: where there are pixels there is their record
            damage.save(self.task, self.name, first, last, [problem for _, found in done for problem in found])
            # as a tensor of its own: torch would write the whole slot
            self.stage.save(first, last, pixels=torch.from_numpy(pixels.numpy()))
        return errors

    def _read(self, pixels: Tensor, first: int, last: int) -> Errors:
        """Read from the cache; what is damaged there is removed, and decoded again."""
        errors: Errors = []
        try:
            self.stage.rows("pixels", first, last, into=pixels)
        except Changed:
            for start, stop in self.stage.missing(self.stage.shard_rows, first, last):
                part = pixels[start - first : stop - first]
                errors += self._keep(part, start, stop, self._decoding(part, start, stop))
            if not errors:
                self.stage.rows("pixels", first, last, into=pixels)
        return errors
