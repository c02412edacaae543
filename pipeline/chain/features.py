"""Stage infer, image side: pixels -> L2-normalised features of one member, which no prompt can change."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from .. import models
from ..core.console import say
from ..core.errors import Damaged, Unavailable, UserError
from ..maths import zeroshot
from ..models import _checks
from ..recipes import Project
from ..recipes.member import Member
from . import brought, canary, preprocess
from .checkpoints import check_unchanged, checkpoint
from .copies import Fetching, Sending
from .feeding import Feed
from .stage import Advance, Stage, Work, declare, make
from .task import Task

QUEUED = 4  # batches of the next shard: they keep a GPU busy while the host waits for one, checks and saves it


def stage(task: Task, member: Member) -> Stage:
    """`features` float16 (N, D) or (N, Q, D), L2-normalised; of a trained head those of its base.

    With `view_pooling: confident` of V views (N, V, D) or (N, V, Q, D).
    """
    member = member.tower
    pixels, pooling = preprocess.stage(task, member.preprocess), task.project.preprocess(member.preprocess).view_pooling
    more = {"pixels": pixels.digest} | ({"view_pooling": pooling} if pooling != "mean" else {})

    def declared(dtype: str, reused: str = "") -> Stage:
        return declare(
            task,
            "features",
            member,
            {**checkpoint(task, member.model, dtype), **more},
            verb="infer",
            begin=lambda _: Encoding(task, member, pixels, dtype),
            inputs=(pixels,),
            reused=reused,
            shard_rows=pixels.shard_rows,
            shared=True,
            streams=True,
        )

    there = brought.dtype(task, member, lambda dtype: declared(dtype).digest)
    if there:
        return declared(there, f"{len(task.images.ids)} images reused that were encoded elsewhere, in {there}")
    return declared(task.dtype)


def of_member(task: Task, member: Member) -> tuple[Stage, int]:
    """The features of a member, computed; and how many images this process encoded for it."""
    found = stage(task, member)
    return found, make(found)


class Encoding(Work):
    """The work of the stage: the image tower in memory, and batches of pixels as they are decoded."""

    def __init__(self, task: Task, member: Member, pixels: Stage, dtype: str):
        self.task, self.member, self.dtype = task, member, dtype
        project, name = task.project, member.model
        entry = project.model(name)
        check_recipe(project, member, entry.size, entry.resize_mode)  # before a long load, as far as it is declared
        self._say_what_will_be_done(pixels)
        self.model = models.load(name, entry, project.root, "image", task.device, dtype)
        check_unchanged(task, name)
        check_recipe(project, member, self.model.image_size, self.model.resize_mode)
        self.fitting = Batches(task.batch_size or self.model.batch_size(task.batch))
        canary.check(task, name, "image", dtype, lambda: self.model.encode_image(canary.pixels(self.model.image_size)))
        if task.compiles:
            canary.compiled(name, self.model, self.fitting.size)
        self.views = Views(self.model, project.preprocess(member.preprocess).view_pooling)
        self.sending = Sending(self.model.device)
        self.feed = Feed(pixels, self.sending)
        self.begun: dict[tuple[int, int], Fetching] = {}  # at most one shard

    def expect(self, start: int, stop: int) -> None:
        self.feed.expect(start, stop)

    def close(self) -> None:
        self.feed.close()

    def _say_what_will_be_done(self, pixels: Stage) -> None:
        task, total = self.task, len(pixels.ids)
        unread = pixels.missing(pixels.shard_rows, checked=False)
        undecoded, todo = sum(stop - start for start, stop in unread), stage(task, self.member).todo
        say("preprocess", self.member.preprocess, f"{total - undecoded} images reused, {undecoded} to decode")
        cached = f", {total - todo} cached" if todo < total else ""
        how = f"{task.device}, {self.dtype}, batch {task.batch} at most"
        say("infer", self.member, f"encoding {todo} images{cached} on {how}")

    def rows(self, start: int, stop: int, advance: Advance) -> dict:
        """Features of images start..stop, float16.

        A GPU has the first batches of the next shard to do before the host waits for these, once, to check and save
        them: it idles at no shard's end. So these are returned by the call that computes them, under their lock, and
        what waits to be saved is one shard, as on a CPU; a run that is killed loses those batches with it.
        """
        found = self.begun.pop((start, stop), None) or Fetching(stop - start)
        self.begun.clear()  # another process took it
        advance(found.count)
        for batch in self.feed.batches(start, stop, found.count):
            for encoded in self.fitting.run(self._encode, batch):
                found.add(encoded)
                advance(len(encoded))
        self._begin_next()
        features = found.wait()
        bad = first_not_finite(features)
        if bad is not None:
            row = start + bad
            image = preprocess.stage(self.task, self.member.preprocess).rows("pixels", row, row + 1)
            why = self.model.why_not_finite(image.flatten(0, -4))
            raise Damaged(f"{self.member}: features of {self.task.images.ids[row]} are not finite: {why}")
        check_unchanged(self.task, self.member.model)
        return {"features": features.half()}

    def _begin_next(self) -> None:
        """Give a GPU the first batches of the shard that is expected, whose pixels are there already."""
        span = self.feed.ahead
        if not span or self.model.device.type != "cuda":
            return
        found = self.begun[span.start, span.stop] = Fetching(span.stop - span.start)
        with contextlib.suppress(UserError):  # it comes again in its turn, when what was computed before is saved
            for batch in islice(self.feed.ready(), QUEUED):
                for encoded in list(self.fitting.run(self._encode, batch)):  # all of a batch or nothing
                    found.add(encoded)

    def _encode(self, pixels: Tensor) -> Tensor:
        return self.views.encode_image(self.sending.send(pixels))

    def told(self, rows: int, seconds: float) -> str:
        return ""  # whoever asked for the features says it


class Views:
    """A model that also encodes several views of each image: their mean, normalised again, or each of them."""

    def __init__(self, model: models.Model, pooling: str):
        self.model, self.pooling = model, pooling

    def encode_image(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> (B, D); (B, V, 3, S, S) -> (B, D) or (B, V, D)."""
        if pixels.ndim == 4:
            return self.model.encode_image(pixels)
        # one view of all images at a time: a batch is as large as without views
        views = torch.stack([self.model.encode_image(view) for view in pixels.unbind(dim=1)], dim=1)
        return views if self.pooling == "confident" else zeroshot.normalise(views.mean(dim=1))


class Batches:
    """Runs a model over rows in batches; a batch that does not fit into memory is halved, for good."""

    def __init__(self, size: int):
        self.size = size

    def run(self, encode: Callable, rows) -> Iterator:
        """Yield encode(batch) for consecutive batches of `rows`. UserError when a single row does not fit."""
        start = 0
        while start < len(rows):
            try:
                encoded = encode(rows[start : start + self.size])
            except torch.OutOfMemoryError:
                encoded = None  # the error holds on to the failed batch: handled outside, after it is gone
            if encoded is None:
                self._halve(len(rows) - start)
                continue
            yield encoded
            start += len(encoded)

    def _halve(self, rows: int) -> None:
        failed = min(self.size, rows)
        if failed == 1:
            raise Unavailable("out of memory with a batch of 1; choose a smaller model, DTYPE=fp16 or another DEVICE")
        self.size = failed // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say("infer", "batch", f"out of memory, going on with batches of {self.size}")


def check_recipe(project: Project, member: Member, size: int | None, resize_mode: str | None) -> None:
    """The member's preprocess recipe must make what the model was trained on (None: not declared, not checked)."""

    def fitting(size: int, mode: str | None) -> list[str]:
        found = {name: project.preprocess(name) for name in project.names("preprocess")}
        return [n for n, r in found.items() if r.size == size and mode in (None, _checks.recipe_resize_mode(r.ops))]

    recipe = project.preprocess(member.preprocess)
    _checks.recipe(member, recipe, size, resize_mode, fitting, project.model(member.model).allow)


def first_not_finite(features: Tensor) -> int | None:
    """The first row with a value that is not finite."""
    finite = features.isfinite().flatten(1).all(dim=1)
    return None if finite.all() else int(finite.int().argmin())


def one_vector(rows: Tensor) -> Tensor:
    """Image features with one vector per image, (n, D) float16: of several the mean, normalised again."""
    return rows if rows.ndim == 2 else zeroshot.normalise(rows.float().flatten(1, -2).mean(dim=1)).half()
