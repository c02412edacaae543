"""What `predict` says of images, by ranges of rows; a range can be a part of a table."""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from ..chain.checkpoints import checkpoint
from ..chain.task import Runtime
from ..classifier import Classifier
from ..cluster.pool import Pool, Rows
from ..core.errors import UserError
from ..core.parquet import Parts
from ..images.listing import Images

Found = list[dict]  # of an image: [{"score", "label"}], best first


@dataclass(frozen=True, eq=False)
class Predictions:
    """The question, and the answer for any rows of `images`."""

    runtime: Runtime
    model: str  # or model@preprocess
    images: Images
    labels: Sequence[str]
    template: str
    top: int

    @cached_property
    def classifier(self) -> Classifier:
        return Classifier(self.runtime, self.model)

    def made_from(self) -> dict:
        """What decides the answers; images are told apart by their size and time, since none is read for it."""
        member, project = self.runtime.project.member(self.model), self.runtime.project
        return {
            **checkpoint(self.runtime, member.model, self.runtime.dtype),
            "preprocess": project.preprocess(member.preprocess).content(),
            "labels": list(self.labels),
            "template": self.template,
            "top": self.top,
            "images": self.images.stamp(),
        }

    def rows(self, start: int, stop: int) -> Iterator[tuple[str, Found | UserError]]:
        """(id, what the classifier says or why the image cannot be read), holding one batch at a time."""
        question = self.labels, self.template, self.top
        with ThreadPoolExecutor(self.runtime.threads) as pool:
            for first in range(start, stop, self.runtime.batch):
                rows = range(first, min(first + self.runtime.batch, stop))
                pixels = list(pool.map(self._read, rows))
                answers = iter(self.classifier.classify([p for p in pixels if not isinstance(p, UserError)], *question))
                for row, seen in zip(rows, pixels, strict=True):
                    yield self.images.ids[row], seen if isinstance(seen, UserError) else next(answers)

    def _read(self, row: int):
        try:
            image = self.images.open(row).image
        except UserError as error:
            return error
        return self.classifier.pixels(image)

    def write(self, parts: Parts, start: int, stop: int) -> list[str]:
        """Write the part of these rows; returns what is wrong with the images that it lacks."""
        import pyarrow

        damaged, wrong, ids, labels, scores = [], [], [], [], []
        for name, found in self.rows(start, stop):
            if isinstance(found, UserError):
                damaged.append(name)
                wrong.append(str(found))
                continue
            ids.append(name)
            labels.append([one["label"] for one in found])
            scores.append([one["score"] for one in found])
        columns = {
            "id": pyarrow.array(ids, pyarrow.string()),
            "labels": pyarrow.array(labels, pyarrow.list_(pyarrow.string())),
            "scores": pyarrow.array(scores, pyarrow.list_(pyarrow.float32())),
        }
        parts.write(start, stop, columns, {"damaged": damaged})
        return wrong

    def written(self, parts: Parts, todo: list[tuple[int, int]]) -> Iterator[tuple[int, int, list[str]]]:
        """`write` of all these ranges, here or on a cluster; (start, stop, what it returned) as they come."""
        if not self.runtime.ray:
            yield from ((start, stop, self.write(parts, start, stop)) for start, stop in todo)
            return
        fixed = replace(self, runtime=replace(self.runtime, dtype_name=self.runtime.dtype))  # whatever actors have
        pool = self.runtime.once(("cluster",), lambda: Pool(self.runtime.ray, self.runtime.workers))
        begin = functools.partial(_begun, fixed, parts)
        yield from pool.run(f"predict {self.model}", f"{parts.folder} {parts.digest}", begin, todo)


def _begun(predictions: Predictions, parts: Parts) -> Rows:
    """In an actor: what writes the part of some rows."""
    return lambda start, stop, following: predictions.write(parts, start, stop)
