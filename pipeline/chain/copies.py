"""What is copied to and from a GPU while it computes: pixels, a batch ahead, and features. A CPU has none of it.

Such a copy is queued, from or into pinned memory, and done some time later; an event tells when. Streams are queues of
a GPU: what lies in one is done in order, what lies in two at the same time.
"""

import torch
from torch import Tensor


def _event(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """Tells when all is done that `stream` has now; whoever waits for it leaves the core to those who decode."""
    event = torch.cuda.Event(blocking=True)
    event.record(stream)
    return event


class Sending:
    """Pixels for a device. A GPU copies them on a stream of their own, while it computes the batch before them.

    They lie there in two places, by turns: what is copied into one waits until all is computed of the batch that was
    there, and the host waits for neither. A new place for each batch would take as much memory as the host is ahead.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.places: list[Tensor] = []
        self.computed: torch.cuda.Event | None = None  # of all batches but the last
        self.sent: torch.cuda.Event | None = None  # the last one

    def send(self, pixels: Tensor) -> Tensor:
        """The same pixels on the GPU, for all that is queued before the next call; for a CPU they are there."""
        if not self.stream:
            return pixels
        computing = torch.cuda.current_stream(self.device)
        if not self.places or len(self.places[0]) < len(pixels):
            self.places = [torch.empty(pixels.shape, dtype=pixels.dtype, device=self.device) for _ in range(2)]
            self.computed = _event(computing)  # memory comes from the allocator as soon as its last use is queued
        self.places.reverse()
        place = self.places[0][: len(pixels)]
        self.stream.wait_event(self.computed)
        self.computed = _event(computing)
        with torch.cuda.stream(self.stream):
            place.copy_(pixels, non_blocking=True)
        self.sent = _event(self.stream)
        computing.wait_event(self.sent)
        return place


class Fetching:
    """Features of `rows` images that come in batches: each is fetched as soon as it is computed.

    The host waits for all of them at once, and may queue other work before it does.
    """

    def __init__(self, rows: int):
        self.rows, self.count = rows, 0
        self.features: Tensor | None = None
        self.fetched: torch.cuda.Event | None = None

    def add(self, batch: Tensor) -> None:
        gpu = batch.device.type == "cuda"
        if self.features is None:
            self.features = torch.empty((self.rows, *batch.shape[1:]), dtype=batch.dtype, pin_memory=gpu)
        self.features[self.count : self.count + len(batch)].copy_(batch, non_blocking=True)
        self.count += len(batch)
        if gpu and self.count == self.rows:
            self.fetched = _event(torch.cuda.current_stream(batch.device))

    def wait(self) -> Tensor:
        """All of them, when they are there."""
        assert self.features is not None and self.count == self.rows
        if self.fetched:
            self.fetched.synchronize()
        return self.features
