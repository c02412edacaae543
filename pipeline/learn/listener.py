"""What is seen of a fine-tuning run while it runs: reports/tensorboard/<name>/ and the terminal."""

from ..chain.task import Runtime
from ..core.console import progress, rank, say


class Bar:
    """A progress bar with loss, rate and time left, and a log for TensorBoard, both of the first process."""

    def __init__(self, task: Runtime, name: str):
        self.task, self.name, self.shown = task, name, {}
        self.folder = task.project.root / "reports" / "tensorboard" / name
        self.bar = self.writer = None

    def started(self, done: int, total: int) -> None:
        if done:
            say("train", self.name, f"going on after step {done} of {total}")
        self.bar = progress(f"train {self.name}", "step", total)
        self.bar.update(done)
        if not rank():
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=done)  # an earlier run in the same folder

    def stepped(self, number: int, loss: float, rate: float) -> None:
        self.bar.set_postfix({"loss": f"{loss:.3f}", **self.shown}, refresh=False)
        self.bar.update()
        self._write(number, {"train/loss": loss, "train/learning_rate": rate})

    def measured(self, number: int, entry: dict[str, float]) -> None:
        self.shown = {key: f"{entry[key]:.3f}" for key in ("acc1", "macro_f1")}
        self._write(number, {f"validation/{key}": value for key, value in entry.items() if key != "epoch"})

    def _write(self, number: int, values: dict[str, float]) -> None:
        for key, value in values.items() if self.writer else ():
            self.writer.add_scalar(key, value, number)

    def close(self) -> None:
        self.bar.close()
        if self.writer:
            self.writer.close()
