"""Generalised zero-shot learning: trained on seen classes, measured on all, with a bias between the two.

Everything is chosen on validation classes: some of the seen ones are held out, training on the others passes through
its states, and the best for unseen classes (`unseen`: accuracy of held-out classes among themselves) and the best for
both (`gzsl`: harmonic mean at its best bias) are noted, each with its bias. Then training runs once more on all seen
classes, and the two noted states are kept (the protocol of Xian et al. 2017, arXiv:1707.00600).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ..core.errors import Damaged, Mismatch, NotFound, did_you_mean
from ..maths import stacking
from ..models import heads
from ..models.heads import Captions, Examples, Head, TrainingData
from ..models.heads._choice import Choice
from ..models.heads.cosine import Head as CosineHead
from ..recipes.training import Unseen
from . import measure

TARGETS = ("gzsl", "unseen")


@dataclass(frozen=True)
class Classes:
    """Masks (C,): classes that are never trained on, and seen ones held out while choosing."""

    unseen: np.ndarray
    held: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        return ~self.unseen


def split(recipe: Unseen, classes: dict[str, str], root: Path, where: str) -> Classes:
    """Seen, unseen and held-out classes of a data set's {published name: name}. UserError when none are left."""
    names = list(classes.values())
    unseen = np.zeros(len(names), bool)
    if recipe.file:
        unseen[_listed(root / recipe.file, classes, where)] = True
    else:
        if recipe.number > len(names) - 3:
            raise Mismatch(
                f"{where}: unseen: number: {recipe.number} of {len(names)} classes leaves fewer than three "
                "seen ones; two are trained on and one chooses"
            )
        unseen[np.random.default_rng(recipe.seed).permutation(len(names))[: recipe.number]] = True
    seen = np.flatnonzero(~unseen)
    number = recipe.validation or max(1, round(len(seen) * unseen.sum() / len(names)))
    if not unseen.any() or number > len(seen) - 2:
        raise Mismatch(
            f"{where}: unseen: {unseen.sum()} unseen and {number} validation classes of {len(names)} leave "
            f"{len(seen) - number} to train on; at least one, one and two are needed"
        )
    held = np.zeros(len(names), bool)
    held[np.random.default_rng([recipe.seed, 1]).permutation(seen)[:number]] = True
    return Classes(unseen, held)


def _listed(path: Path, classes: dict[str, str], where: str) -> list[int]:
    """Labels of the classes a file names, a line each, as published or as in prompts."""
    if not path.is_file():
        raise NotFound(f"{where}: unseen: file: no {path}")
    label = {name: number for pair in (classes, classes.values()) for number, name in enumerate(pair)}
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise Damaged(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    for name in names:
        if name not in label:
            raise NotFound(f"{path}: the data has no class {name!r}.{did_you_mean(name, classes)}")
    return [label[name] for name in names]


def measured_on(validation: Examples, classes: Classes):
    """Measure for a `Choice`: held-out classes stand for the unseen ones; truly unseen ones take no part."""
    columns = torch.from_numpy(np.flatnonzero(classes.seen))
    held = classes.held[classes.seen]
    truth = torch.searchsorted(columns, validation.labels)

    def measures(head: Head) -> dict[str, float]:
        logits = torch.from_numpy(measure.logits(head, validation))[:, columns]
        curve = stacking.curve(logits.numpy(), truth.numpy(), ~held)
        seen, unseen, harmonic = curve.at(curve.best)
        of_held = held[truth.numpy()]
        among = np.where(held, logits.numpy(), -np.inf).argmax(axis=1) == truth.numpy()
        return {
            "gzsl": harmonic,
            "unseen": stacking.class_accuracy(among[of_held], truth.numpy()[of_held]),
            "seen": seen,
            "bias": curve.best,
            "loss": float(functional.cross_entropy(logits, truth)),
        }

    return measures


def fit(
    method, data: TrainingData, validation: Examples, classes: Classes, where: str, tell
) -> tuple[dict[str, Head], Choice]:
    """The heads by target, with their bias in them, and the choice that found their settings.

    `data.train` and `validation` are of the training split; images of unseen classes in them are dropped here, before
    anything sees them.
    """
    name = method[0]
    if not heads.METHODS.find(name, where).for_unseen:
        raise Mismatch(
            f"{where}: method {name} knows only the classes it was trained on; for unseen classes take "
            f"{', '.join(heads.having(for_unseen=True))}"
        )
    train, validation = (kept(examples, classes.seen) for examples in (data.train, validation))
    choice = Choice(measured_on(judges(train, validation, classes), classes), TARGETS, tell)
    heads.fit(method, replace(data, train=kept(train, ~classes.held)), choice, where)
    settings = [choice.setting(target) for target in TARGETS]
    again = heads.refit(method, replace(data, train=train), validation, settings, where, tell)
    seen, found = torch.from_numpy(classes.seen), dict(zip(TARGETS, again, strict=True))
    return {t: heads.with_bias(head, seen, choice.measures(t)["bias"]) for t, head in found.items()}, choice


def judges(train: Examples, validation: Examples, classes: Classes) -> Examples:
    """What chooses: validation images of the classes trained on, and all images of those held out."""
    found = kept(validation, classes.seen & ~classes.held), kept(train.joined(validation), classes.held)
    return found[0].joined(found[1])


def kept(examples: Examples, mask_C: np.ndarray) -> Examples:
    """The examples of the classes in a mask (C,)."""
    return examples.take(torch.from_numpy(mask_C)[examples.labels])


def zero_shot(captions: Captions) -> Head:
    """The captions alone as a head: what training has to beat."""
    head = CosineHead(len(captions.features), *[captions.features.shape[1]] * 2, captions.logit_scale)
    with torch.no_grad():
        torch.nn.init.eye_(head.map.weight)
        head.captions.copy_(captions.features)
    return head


def zero_shot_bias(data: TrainingData, validation: Examples, classes: Classes) -> float:
    """The best bias of the captions alone, chosen on the same validation images as everything else."""
    found = measured_on(judges(data.train, validation, classes), classes)(zero_shot(data.captions))
    return found["bias"]
