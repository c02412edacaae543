"""A simulated GPU: its streams do nothing before somebody waits for them, or all that they may at once."""

import contextlib
from collections import Counter, deque
from concurrent.futures import wait

import torch

from pipeline import models
from pipeline.chain import canary, features
from pipeline.chain.feeding import Feed

CUDA = torch.device("cuda")
WAITS = {"cpu", "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__array__", "nonzero", "is_nonzero"}


class OnGpu(torch.Tensor):
    """What lies on the GPU, and what is made of it, until it is fetched; `waited` counts what makes the host wait."""

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    waited: Counter = Counter()

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), more=None):
        name = getattr(function, "__name__", "")
        if name in WAITS or (name == "to" and "cpu" in map(str, arguments[1:])):
            cls.waited[name] += 1
            return function(*map(plain, arguments), **(more or {}))
        return super().__torch_function__(function, types, arguments, more or {})


def plain(value):
    return value.as_subclass(torch.Tensor) if isinstance(value, OnGpu) else value


class Stream:
    """A queue of work; `eager` does what it may as soon as it may, otherwise it is done when somebody waits for it."""

    def __init__(self, gpu: "Gpu", eager: bool):
        self.gpu, self.eager, self.work, self.done = gpu, eager, deque(), 0

    def queue(self, job, needs=None) -> None:
        self.work.append((job, needs))
        self.go_on()

    def go_on(self) -> None:
        while self.eager and self.work and (self.work[0][1] is None or self.work[0][1].query()):
            self._one()

    def wait_event(self, event: "Event") -> None:
        self.queue(event.reach, event)

    def run(self, count: int) -> None:
        """Until so many were done in all."""
        while self.done < count:
            self._one()
            self.gpu.copying.go_on()

    def _one(self) -> None:
        job, _ = self.work.popleft()
        job()
        self.done += 1


class Event:
    """A point in a stream, told of by `synchronize`, which makes the host wait if it has not been reached."""

    def __init__(self, gpu: "Gpu", blocking: bool):
        assert blocking, "a host that waits leaves its core to others"
        self.gpu = gpu

    def record(self, stream: Stream) -> None:
        self.stream, self.count = stream, stream.done + len(stream.work)

    def query(self) -> bool:
        return self.stream.done >= self.count

    def reach(self) -> None:
        self.stream.run(self.count)

    def synchronize(self) -> None:
        if not self.query():
            self.reach()
            self.gpu.left.append(len(self.gpu.computing.work))


class Gpu:
    """In place of torch.cuda while a test runs: towers lie there, and compute when their stream comes to it.

    `left` has, for each time that the host waited, how much was still to compute then; `sources` the memory of which
    something will still be copied; `given` what towers were given, `limit` how many images they take at a time.
    """

    def __init__(self, patch, eager: bool):
        self.patch, self.left, self.sources, self.given, self.limit = patch, [], [], [], 1000
        self.computing, self.copying = Stream(self, False), Stream(self, eager)
        self.current, OnGpu.waited = self.computing, Counter()
        self.originals = torch.Tensor.copy_, torch.empty, models.load, features.Views.encode_image
        for name, value in {
            "Stream": lambda device: self.copying,
            "Event": lambda blocking: Event(self, blocking),
            "current_stream": lambda device: self.current,
            "stream": self._within,
        }.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.Tensor, "copy_", lambda *arguments, **more: self._copied(*arguments, **more))
        patch.setattr(torch, "empty", self._empty)
        patch.setattr(models, "load", lambda *asked: Tower(self, self.originals[2](*asked)))
        patch.setattr(features.Views, "encode_image", lambda views, pixels: self._encoded(views, pixels))
        patch.setattr(canary, "check", lambda *_: None)  # once a run, before the first shard
        slot, ready = Feed._slot, Feed.ready
        patch.setattr(Feed, "_slot", lambda feed, rows: self._unused(slot(feed, rows)))
        patch.setattr(Feed, "ready", lambda feed: ready(there(feed)))

    @contextlib.contextmanager
    def _within(self, stream: Stream):
        self.current, before = stream, self.current
        yield
        self.current = before

    def _empty(self, *size, pin_memory=False, device=None, **more):
        if not pin_memory and device != CUDA:
            return self.originals[1](*size, device=device, **more)
        made = self.originals[1](*size, **more).fill_(77)  # what nobody should see
        return made.as_subclass(OnGpu) if device == CUDA else made

    def _copied(self, into, source, non_blocking=False):
        if not (isinstance(into, OnGpu) or isinstance(source, OnGpu)):
            return self.originals[0](into, source, non_blocking)
        assert non_blocking, "the host waits for this copy"
        source = plain(source)
        self.sources.append(source)

        def copy() -> None:
            self.sources = [one for one in self.sources if one is not source]
            self.originals[0](plain(into), source)

        self.current.queue(copy)
        return into

    def _encoded(self, views, pixels):
        """Features that are none before the stream comes to them; of the pixels that are there by then."""
        assert self.current is self.computing and isinstance(pixels, OnGpu)
        encode, images = self.originals[3], plain(pixels)
        found = torch.full_like(plain(encode(views, images)), 77)
        self.computing.queue(lambda: self.originals[0](found, plain(encode(views, images))))
        return found.as_subclass(OnGpu)

    def _unused(self, slot):
        memory = slot.untyped_storage().data_ptr()
        assert memory not in {one.untyped_storage().data_ptr() for one in self.sources}, "it is still copied from"
        return slot


def there(feed: Feed) -> Feed:
    """The pixels of the rows that come next are there by now."""
    if feed.ahead:
        wait([job for part in feed.ahead.parts for job in (*part.groups, part.file)])
    return feed


class Tower:
    """A loaded model that lies on the GPU."""

    def __init__(self, gpu: Gpu, model):
        self.gpu, self.model, self.device = gpu, model, CUDA

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode_image(self, pixels):
        self.gpu.given.append(pixels.dtype)
        if len(pixels) > self.gpu.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model.encode_image(pixels).as_subclass(OnGpu)
