"""Stage threshold: low probabilities of the blend become zero, in cache/<competition>/threshold/."""

from ..maths import zeroshot
from . import ensemble
from .columns import Columns
from .stage import Advance, Stage, Work, declare
from .task import Task


def stage(task: Task, name: str) -> Stage:
    """`probs` float32 (N, P) of a recipe, not renormalised; the blend itself where nothing is to become zero."""
    blend, limit = ensemble.stage(task, name), task.project.ensemble(name).threshold
    if not limit:
        return blend
    return declare(
        task,
        "threshold",
        name,
        {"ensemble": blend.digest, "threshold": limit},
        verb="threshold",
        begin=lambda _: Zeroing(blend, limit),
        inputs=(blend,),
        reused=f"{len(task.images.ids)} images reused",
        row_bytes=blend.row_bytes,
        rowwise=True,
    )


class Zeroing(Work):
    """The work of the stage."""

    def __init__(self, blend: Stage, limit: float):
        self.blend, self.limit = blend, limit
        self.columns: dict = {}
        self.zeroed = self.values = 0

    def rows(self, start: int, stop: int, advance: Advance) -> dict:
        self.columns = self.columns or Columns.read(self.blend, start).saved()
        probs = zeroshot.threshold(self.blend.rows("probs", start, stop), self.limit)
        self.zeroed, self.values = self.zeroed + probs.numel() - int(probs.count_nonzero()), self.values + probs.numel()
        return {"probs": probs, **self.columns}

    def told(self, rows: int, seconds: float) -> str:
        if not rows:
            return ""
        done = f"{self.zeroed / self.values:.1%} of the values are not above {self.limit:g} and become 0"
        return f"{done}; {len(self.blend.ids)} images in {seconds:.2f} s"
