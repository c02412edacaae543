"""The training loop: steps, epochs, checkpoints. Killed at any moment, it goes on as if it had not been."""

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from ...core import artefacts
from ...core.digests import digest_of
from ...core.errors import UserError
from ...models.heads import Examples, Head, TrainingData, _descent
from . import schedule, seed_of
from .augment import Augmented
from .layers import groups
from .network import Network, mixed
from .settings import Finetune

State = dict[str, Tensor]


@dataclass(frozen=True)
class Images:
    """What is learnt from: `pixels(row)` gives uint8 (3, S, S) of the rows (N,); `data` their labels and balance."""

    pixels: Callable[[int], Tensor]
    rows: Tensor
    data: TrainingData


@dataclass(frozen=True)
class Judge:
    """What chooses: pixels and labels of validation images, the measures of a head on their features, the metric."""

    pixels: Callable[[int], Tensor]
    rows: Tensor
    labels: Tensor
    measure: Callable[[Head, Examples], dict[str, float]]
    metric: str

    def score(self, measures: dict[str, float]) -> tuple[float, float]:
        """Higher is better; of two equal ones the lower loss wins."""
        return measures[self.metric], -measures["loss"]


@dataclass
class Progress:
    """Where a run is. `step` counts within the epoch, `history` has one entry per finished epoch."""

    epoch: int = 1
    step: int = 0
    loss: float = 0.0  # summed over the images of the epoch's steps
    images: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Listener(Protocol):
    """Is told what happens."""

    def started(self, done: int, total: int) -> None:
        """Before the first step of this process: `done` steps of `total` were made earlier."""

    def stepped(self, number: int, loss: float, rate: float) -> None:
        """After step `number` (from 0), with the mean loss of its batch and its learning rate."""

    def measured(self, number: int, entry: dict[str, float]) -> None:
        """After an epoch, with its entry of the history; `number` steps are done."""


class Loop:
    """One run of training, in the processes of `accelerator`; its checkpoints lie in `folder` and know `made_from`."""

    def __init__(
        self,
        network: Network,
        images: Images,
        judge: Judge,
        settings: Finetune,
        accelerator,
        folder: Path,
        made_from: dict,
        listener: Listener,
        workers: int = 0,
    ):
        self.images, self.judge, self.settings, self.listener = images, judge, settings, listener
        self.accelerator, self.folder, self.made_from, self.workers = accelerator, folder, made_from, workers
        self.seed, self.progress, self.saved = images.data.seed, Progress(), time.monotonic()
        self.network = network.to(accelerator.device, memory_format=torch.channels_last)  # faster convolutions
        self.initial = self.state()
        head_rate = settings.head_learning_rate or settings.learning_rate
        parameters = groups(network.encoder, settings.learning_rate, settings.weight_decay, settings.layer_decay)
        heads = [p for p in (network.weight, network.bias) if p.requires_grad]
        if heads:
            parameters.append({"params": heads, "rate": head_rate, "lr": head_rate, "weight_decay": 0.0})
        optimiser = torch.optim.AdamW(parameters, foreach=False)
        self.model, self.optimiser = accelerator.prepare(network, optimiser)
        self.per_epoch = len(self._batches(1))

    @property
    def parts(self) -> int:
        """How many parts a batch is computed in, by all processes together."""
        return self.settings.accumulate * self.accelerator.num_processes

    @property
    def done(self) -> int:
        return (self.progress.epoch - 1) * self.per_epoch + self.progress.step

    @property
    def total(self) -> int:
        return self.per_epoch * self.settings.epochs

    def run(self) -> State:
        """Train, or go on; the state of the best epoch by the metric is returned."""
        self._restore()
        at = self.progress
        self.listener.started(self.done, self.total)
        while at.epoch <= self.settings.epochs and not self._waited_enough():
            for batch, (pixels, shares) in self._steps(at.epoch, at.step):
                loss = self._step(pixels, shares, batch)
                at.step, at.loss, at.images = at.step + 1, at.loss + loss * len(batch), at.images + len(batch)
                if time.monotonic() - self.saved >= 60 * self.settings.save_minutes:
                    self._save()
            self._finish_epoch()
        best = artefacts.load(self._file("best"), digest_of(self.made_from))
        assert best is not None, f"{self._file('best')} vanished while it was in use"
        return {name: tensor.clone() for name, tensor in best["network"].items()}

    def sweep(self, best: State) -> list[dict[str, float]]:
        """Validation measures of the averages of initial and best weights, one for each alpha."""
        found = []
        for alpha in self.settings.alphas:
            self.network.load_state_dict(mixed(self.initial, best, alpha))
            found.append({"alpha": alpha, **self.validate()})
        return found

    def state(self) -> State:
        """A copy of the network's weights and buffers, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measures of the present weights; each process encodes its share of the images."""
        from accelerate.utils import gather_object

        self.network.eval()
        mine, rank, world = [], self.accelerator.process_index, self.accelerator.num_processes
        for rows in self.judge.rows[rank::world].split(max(1, self.settings.batch // self.parts)):
            pixels = torch.stack([self.judge.pixels(int(row)) for row in rows])
            with self.accelerator.autocast():
                mine.append(self.network(pixels.to(self.accelerator.device))[0].cpu())
        shares = gather_object([torch.cat(mine)])
        features = torch.empty(len(self.judge.rows), shares[0].shape[1])
        for number, share in enumerate(shares):
            features[number::world] = share
        return self.judge.measure(self.network.head(), Examples(features, self.judge.labels))

    def _waited_enough(self) -> bool:
        """Whether the last `patience` epochs brought no better value of the metric."""
        scores, patience = [entry[self.judge.metric] for entry in self.progress.history], self.settings.patience
        return bool(patience) and len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])

    def _batches(self, epoch: int) -> list[Tensor]:
        """Positions of the training images, a tensor per step; the order depends on seed and epoch alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, 0, epoch))
            return _descent.batches(self.images.data, self.settings.batch, least=2 * self.parts)

    def _steps(self, epoch: int, first: int) -> Iterator:
        """(positions, (pixels, labels)) of the steps from `first` on; pixels and labels of this process's parts."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batches, place, plan, order = self._batches(epoch), 0, [], []
        for number, batch in enumerate(batches):
            own = list(torch.arange(place, place + len(batch)).tensor_split(self.parts))[rank::world]
            place += len(batch)
            if number >= first:
                plan.append((batch, own))
        flat = torch.cat(batches)
        for _, own in plan:
            order += [[(epoch, int(p), int(self.images.rows[flat[p]])) for p in part] for part in own]
        size = self.images.pixels(0).shape[-1]
        images = Augmented(self.images.pixels, size, self.settings.augmentations, self.seed)
        pixels = iter(DataLoader(images, batch_sampler=order, num_workers=self.workers))
        for batch, own in plan:
            yield batch, ((next(pixels) for _ in own), [self.images.data.train.labels[flat[part]] for part in own])

    def _step(self, pixels: Iterator[Tensor], labels: list[Tensor], batch: Tensor) -> float:
        """One step of the optimiser; the mean loss over the batch (over this process's part of it, if several)."""
        at, settings, accelerator = self.progress, self.settings, self.accelerator
        number = self.done
        rate = schedule.factor(settings, number, self.total, [self.judge.score(one)[0] for one in at.history])
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * rate
        torch.manual_seed(seed_of(self.seed, 2, number, accelerator.process_index))
        self.network.prepare(settings.batch_norm)
        whole, mean = self._weight(self.images.data.train.labels[batch]), 0.0
        for part, truth in enumerate(labels):
            last = part == len(labels) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.model):
                with accelerator.autocast():
                    _, logits = self.model(next(pixels).to(accelerator.device))
                # gradients are averaged over processes, and are to be those of the whole batch
                loss = self._loss(logits, truth) / whole * accelerator.num_processes
                accelerator.backward(loss)
                mean += float(loss.detach())
        if settings.clip:
            accelerator.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if mean != mean:
            raise UserError(f"the loss of step {number + 1} is not a number; lower learning_rate, or 'precision: fp32'")
        self.listener.stepped(number, mean, self.settings.learning_rate * rate)
        return mean

    def _weight(self, labels: Tensor) -> float:
        return float(self.images.data.class_weights[labels].sum())

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy summed over a part, among the classes that have training images."""
        trained = self.images.data.trained
        device, weights = logits.device, self.images.data.class_weights[trained]
        return functional.cross_entropy(
            logits[:, trained.to(device)],
            torch.searchsorted(trained, labels).to(device),
            weight=weights.to(device),
            reduction="sum",
            label_smoothing=self.settings.label_smoothing,
        )

    def _finish_epoch(self) -> None:
        """Measure, note, keep the best, save."""
        at = self.progress
        measures = self.validate()
        before = [self.judge.score(entry) for entry in at.history]
        at.history.append({"epoch": at.epoch, "train_loss": at.loss / at.images, **measures})
        self.listener.measured(self.done, at.history[-1])
        # of two equal epochs the first is kept; the file is written before the history that says so
        if all(self.judge.score(measures) > score for score in before) and self.accelerator.is_main_process:
            artefacts.save(self._file("best"), self.made_from, network=self.state())
        at.epoch, at.step, at.loss, at.images = at.epoch + 1, 0, 0.0, 0
        self._save()
        self.accelerator.wait_for_everyone()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _save(self) -> None:
        """Everything that decides the rest of the run, in one file that is there whole or not at all."""
        self.saved = time.monotonic()
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
            artefacts.save(
                self._file("last"),
                self.made_from,
                network=self.state(),
                scaler=scaler,
                optimiser=self.optimiser.state_dict(),
                progress=json.dumps(vars(self.progress)),
            )

    def _restore(self) -> None:
        """Go on from the last checkpoint if there is one of this very run, with its best weights beside it."""
        digest = digest_of(self.made_from)
        last = artefacts.load(self._file("last"), digest)
        progress = Progress(**json.loads(last["progress"])) if last else Progress()
        if not last or (progress.history and artefacts.load(self._file("best"), digest) is None):
            return
        self.network.load_state_dict(last["network"])
        self.optimiser.load_state_dict(copy.deepcopy(last["optimiser"]))  # not a view of the file
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(last["scaler"])
        self.progress = progress
