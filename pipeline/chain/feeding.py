"""Pixels ahead of whoever takes them: while one shard is encoded the next is read or decoded, and the last one saved.

All of it happens in threads: Pillow, checksums and files are worked on outside the interpreter lock.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from ..core.errors import Changed, UserError
from ..images.ops import compile_recipe
from . import damage
from .damage import Problem
from .stage import Stage

GROUP = 8  # images that a thread decodes at a time: fewer hand-overs, and a batch still has work for many threads

Errors = list[tuple[int, UserError]]  # of rows


@dataclass
class Part:
    """Rows first..last that are decoded in `groups`, or read where there are none; `file` ends with it, saved."""

    first: int
    last: int
    file: Future
    groups: list[Future] = field(default_factory=list)

    def batches(self, size: int) -> Iterator[tuple[int, int, Errors]]:
        """Rows first..last that are ready, and what went wrong with them or some that follow."""
        errors, ready = [], self.first if self.groups else self.last
        if not self.groups:
            errors = self.file.result()
        groups = iter(self.groups)
        for first in range(self.first, self.last, size):
            last = min(first + size, self.last)
            while ready < last:
                errors, ready = errors + next(groups).result()[0], ready + GROUP
            yield first, last, errors


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
    """The pixels of one preprocess recipe, shard after shard; to be closed."""

    def __init__(self, stage: Stage):
        self.stage, self.task, self.name = stage, stage.task, stage.subject
        self.decoders, self.files = ThreadPoolExecutor(self.task.threads), ThreadPoolExecutor(1)
        self.spare: list[Tensor] = []
        self.following: tuple[int, int] | None = None
        self.ahead: Span | None = None

    @cached_property
    def apply(self):
        recipe = self.task.project.preprocess(self.name)
        return compile_recipe(recipe, self.task.project.where("preprocess", self.name), self.task.place)

    def close(self) -> None:
        """End all threads; what is being written is written whole."""
        self.decoders.shutdown(cancel_futures=True)
        self.files.shutdown(cancel_futures=True)

    def expect(self, start: int, stop: int) -> None:
        """These rows will probably be asked for after the next ones."""
        self.following = start, stop

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Pixels of images start..stop, uint8 (B, 3, S, S) at a time, each good until the next `batches`.

        With V views (B, V, 3, S, S). What was decoded is in the cache when it ends. Under a strict policy a damaged
        image ends it, with an error that names all damaged ones from there on; under one that falls back its pixels
        are black.
        """
        span, self.ahead = self._begun(start, stop), None
        if self.following:
            self.ahead, self.following = self._begin(*self.following), None
        for part in span.parts:
            for first, last, errors in part.batches(self.task.batch):
                if errors:
                    span.cancel()
                    raise self._refusal(first)
                yield span.pixels(first, last)
            part.file.result()
        self.spare.append(span.slot)

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
            self.spare.append(self.ahead.slot)
        return self._begin(start, stop)

    def _begin(self, start: int, stop: int) -> Span:
        span, at = Span(start, stop, self._slot(stop - start)), start
        for first, last in [*self.stage.missing(self.stage.shard_rows, start, stop, checked=False), (stop, stop)]:
            if at < first:
                span.parts.append(Part(at, first, self.files.submit(self._read, span.pixels(at, first), at, first)))
            if first < last:
                groups = self._decoding(span.pixels(first, last), first, last)
                file = self.files.submit(self._keep, span.pixels(first, last), first, last, groups)
                span.parts.append(Part(first, last, file, groups))
            at = last
        return span

    def _slot(self, rows: int) -> Tensor:
        """Memory for so many rows; a GPU copies from it while the tower computes."""
        fitting = next((number for number, slot in enumerate(self.spare) if len(slot) >= rows), None)
        if fitting is not None:
            return self.spare.pop(fitting)
        self.spare.clear()
        recipe = self.task.project.preprocess(self.name)
        each = self.stage.row_bytes // (3 * recipe.size**2)
        shape = (rows, *([each] if recipe.views else []), 3, recipe.size, recipe.size)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.task.device.type == "cuda")

    def _decoding(self, pixels: Tensor, first: int, last: int) -> list[Future]:
        _ = self.apply  # mistakes of the recipe are told before anything is decoded
        return [
            self.decoders.submit(self._decoded, row, min(row + GROUP, last), pixels[row - first :])
            for row in range(first, last, GROUP)
        ]

    def _decoded(self, first: int, last: int, into: Tensor | None = None) -> tuple[Errors, list[Problem]]:
        """Decode images first..last, without keeping them where there is nothing to keep them in."""
        recipe, errors, found = self.task.project.preprocess(self.name), [], []
        for row in range(first, last):
            try:
                seen = damage.picture(self.task, row, recipe.draft_size)
                image = Image.new("RGB", (recipe.size, recipe.size)) if seen.image is None else seen.image
                pixels = self.apply(image)
                if into is not None:
                    into[row - first] = torch.from_numpy(pixels)
                found += damage.of_picture(row, seen)
            except UserError as error:
                errors.append((row, error))
        return errors, found

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
