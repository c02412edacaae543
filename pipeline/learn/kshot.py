"""Verb kshot: accuracy over k training images per class, for several methods and seeds, beside zero-shot.

A part of the training split is held out, and min(k, 4) images of each class of it choose settings and epochs, the
protocol of CoOp (Zhou et al. 2021, arXiv:2109.01134); k images of each class of the rest are trained on. The split that
is reported is only measured. A finished fit is kept and not repeated.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from ..chain import features as chain_features
from ..chain.task import Runtime
from ..core import artefacts
from ..core.console import progress, rank
from ..core.digests import FORMAT, digest_of
from ..core.errors import Mismatch, UserError
from ..core.tables import csv_text, markdown
from ..labelled.task import DatasetTask
from ..maths.metrics import Interval, mean_interval
from ..models import heads
from ..models.heads import Examples, Head
from ..models.heads._choice import Choice
from ..recipes.training import Training
from . import measure, sampling, seen_unseen, training_set
from .trained import code_of
from .training_set import TrainingSet

KS = (1, 2, 4, 8, 16, 32, 64, 128)
MEASURES = ("acc1", "macro_f1", "mean_per_class_recall")
CHOOSING = 4  # validation images of each class, at most
MOST_SEEDS = 100


@dataclass(frozen=True)
class Curves:
    """`values[method][k]` are dicts of measures, one per seed; `distinct[k]` the fewest and most images of a class."""

    dataset: str
    member: str
    images: int
    values: dict[str, dict[int, list[dict[str, float]]]]
    zero_shot: dict[str, float] | None
    distinct: dict[int, tuple[int, int, int]]
    classes: int

    def interval(self, method: str, k: int, name: str) -> Interval:
        return mean_interval([seed[name] for seed in self.values[method][k]])


def measure_curves(
    runtime: Runtime,
    model: str,
    dataset: str,
    methods: Sequence[str] = (),
    shots: Sequence[str | int] = KS,
    seeds: int = 5,
    prompts: str | None = None,
) -> Curves | None:
    """Fit and measure what is not yet measured.

    Of the processes a launcher starts, all encode images and the first goes on alone (the others return nothing).
    """
    content = {"model": model, "dataset": dataset, "method": "linear_probe", "prompts": prompts}
    recipe = Training.parse(content, "kshot")
    recipe.check(runtime.project.dataset(dataset), runtime.project.where("datasets", dataset))
    if not 1 <= seeds <= MOST_SEEDS:
        raise UserError(f"SEEDS={seeds}: give 1 to {MOST_SEEDS}")
    ks = _numbers(shots or KS)
    if rank():
        training_set.encode(runtime, recipe)
        return None
    source, test_task = TrainingSet(runtime, recipe), DatasetTask.of(runtime, dataset, asked_prompts=prompts)
    methods, fits = _methods(methods, source.caption_model is not None), Fits(source, test_task)
    values: dict = {method: {k: [] for k in ks} for method in methods}
    with progress(f"kshot {source.member}", "fit", len(methods) * len(ks) * seeds) as bar:
        for method, k, seed in itertools.product(methods, ks, range(seeds)):
            values[method][k].append(fits.measures(method, k, seed))
            bar.update()
    images, classes, distinct = len(test_task.truth), len(source.class_names), _distinct(source.examples, ks)
    return Curves(dataset, source.member, images, values, fits.zero_shot(), distinct, classes)


def _numbers(written: Sequence[str | int]) -> list[int]:
    wrong = [text for text in written if not str(text).isdecimal() or not 1 <= int(text) <= 100_000]
    if wrong:
        raise UserError(f"SHOTS: {wrong[0]!r} is not a positive whole number, e.g. SHOTS='1 4 16'")
    return sorted({int(text) for text in written})


def _methods(asked: Sequence[str], with_text: bool) -> list[str]:
    for name in asked:
        if heads.METHODS.find(name, "METHODS").needs_text and not with_text:
            raise Mismatch(f"METHODS: {name} needs a text tower, and the model has none")
    usual = sorted((one.in_kshot, name) for name, one in heads.METHODS.items() if one.in_kshot)
    return list(asked or [name for _, name in usual if with_text or not heads.METHODS[name].needs_text])


def parts(known: Examples, k: int, seed: int) -> tuple[Examples, Examples]:
    """(k images of each class, at most four others of each that choose)."""
    held = torch.from_numpy(sampling.held_out(known.labels.numpy(), 0.25, seed))
    pool, rest = known.take(~held), known.take(held)
    train = pool.take(torch.from_numpy(sampling.shots(pool.labels.numpy(), k, seed)))
    return train, rest.take(torch.from_numpy(sampling.at_most(rest.labels.numpy(), min(k, CHOOSING), seed)))


@dataclass(frozen=True)
class Fits:
    """Single fits on k images of each class, measured on the split of `test_task` and kept."""

    source: TrainingSet
    test_task: DatasetTask

    @cached_property
    def test(self) -> Examples:
        return training_set.examples(self.test_task, self.source.member)

    def zero_shot(self) -> dict[str, float] | None:
        """Measures of the captions alone; None for a model without a text tower."""
        captions = self.source.captions
        return measure.of(seen_unseen.zero_shot(captions), self.test) if captions else None

    def measures(self, method: str, k: int, seed: int) -> dict[str, float]:
        """Measures of one fit, from the cache if they are there; those kept before `code` was noted stay valid."""
        before = self._made_from(method, k, seed)
        code = self.test_task.once(("code", method), lambda: code_of(heads.METHODS[method].__module__))
        for made_from in (before, before | {"code": code}):
            file = self.test_task.cache / "cells" / self.source.member / f"{digest_of(made_from)}.pt"
            stored = artefacts.load(file, digest_of(made_from))
            if stored:
                return json.loads(stored["metrics"])
        found = measure.of(self._head(method, k, seed), self.test)
        artefacts.save(file, made_from, metrics=json.dumps(found))
        return found

    def _made_from(self, method: str, k: int, seed: int) -> dict:
        return {
            "stage": "kshot",
            "format": FORMAT,
            "method": method,
            "k": k,
            "seed": seed,
            "features": chain_features.stage(self.test_task, self.source.member).digest,
            "test_labels": digest_of({"labels": self.test_task.truth}),
            "source": self.source.made_from(heads.METHODS[method].needs_text),
        }

    def _head(self, method: str, k: int, seed: int) -> Head:
        train, validation = parts(self.source.examples, k, seed)
        choice = Choice(measure.on(validation), ("macro_f1",))
        data = replace(self.source.data(train, heads.METHODS[method].needs_text), seed=seed)
        heads.fit((method, None), data, choice, "kshot")
        return choice.head()


def _distinct(known: Examples, ks: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """{k: (classes with fewer than k images to draw from, and the fewest and most of those)}."""
    held = torch.from_numpy(sampling.held_out(known.labels.numpy(), 0.25, 0))
    images = np.bincount(known.labels[~held].numpy())
    short = {k: images[(images < k) & (images > 0)] for k in ks}
    return {k: (len(few), int(few.min()), int(few.max())) if len(few) else (0, k, k) for k, few in short.items()}


def replaced(result: Curves, k: int) -> str:
    """What was drawn with replacement for this k, in words; nothing where no class had fewer images."""
    classes, fewest, most = result.distinct[k]
    span = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{classes} of {result.classes} classes ({span} images)" if classes else ""


def rows(result: Curves, name: str = "acc1") -> list[list[str]]:
    """A row per k: mean over seeds and half the width of its interval, by method; what was drawn more than once."""
    lines = []
    for k in result.distinct:
        found = [result.interval(method, k, name) for method in result.values]
        lines.append([str(k), *map(str, found), replaced(result, k)])
    return lines


def header(result: Curves) -> list[str]:
    return ["k", *result.values, "drawn with replacement"]


def to_markdown(result: Curves) -> str:
    """Tables of accuracy and macro F1."""
    text = []
    for name in ("acc1", "macro_f1"):
        text += [markdown([f"k ({name})", *header(result)[1:]], rows(result, name)), ""]
    if result.zero_shot:
        text.append(f"Zero-shot: acc1 {result.zero_shot['acc1']:.3f}, macro F1 {result.zero_shot['macro_f1']:.3f}.")
    return "\n".join(text).strip() + "\n"


def to_csv(result: Curves) -> str:
    """Tidy: a line per method, k, seed and measure."""
    lines = [
        (result.dataset, result.member, method, k, seed, name, f"{found[name]:.6f}")
        for method, by_k in result.values.items()
        for k, seeds in by_k.items()
        for seed, found in enumerate(seeds)
        for name in MEASURES
    ]
    for name in MEASURES if result.zero_shot else ():
        lines.append((result.dataset, result.member, "zero-shot", 0, 0, name, f"{result.zero_shot[name]:.6f}"))
    return csv_text(("dataset", "model", "method", "k", "seed", "measure", "value"), lines)
