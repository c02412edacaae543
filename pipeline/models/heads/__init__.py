"""Heads: what is trained on frozen image features, one file per method. Tensors only, no files but a head's own.

A method is a function `(data, choice, argument...)` with `@method(head=Head, trait...)`; the arguments' annotations are
what a recipe may set. It shows every state that may be the result to `choice`, which keeps the best. To add one, write
a file here, or register a function anywhere before the recipe is read.

Shape suffixes: N images, C classes, K classes trained on, D feature dimensions, P examples kept as keys.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...core.errors import Damaged, Mismatch, NotFound
from ...core.files import atomic_file
from ...core.registry import Registry, import_modules
from ..family import Family

FAMILY = Family(text=False)
KEY = "head"  # one key: with several, safetensors writes them in any order and bytes differ from run to run

# what the arguments of methods may be
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Balance = Literal["none", "sampling", "weights"]


@dataclass(frozen=True)
class Examples:
    """Image features (N, D) float32, L2-normalised, and their labels (N,) int64."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> "Examples":
        return Examples(self.features[rows], self.labels[rows])

    def joined(self, other: "Examples") -> "Examples":
        return Examples(torch.cat([self.features, other.features]), torch.cat([self.labels, other.labels]))


@dataclass(frozen=True)
class Captions:
    """A text tower's side of the classes: mean text features (C, D), L2-normalised, and its logit scale."""

    features: Tensor
    logit_scale: float


@dataclass(frozen=True)
class TrainingData:
    """All that a method may learn from. `classes` is C; labels are below it, but not each one need occur."""

    train: Examples
    classes: int
    captions: Captions | None = None
    balance: Balance = "none"
    seed: int = 0

    @property
    def counts(self) -> Tensor:
        """Training images per class (C,)."""
        return torch.bincount(self.train.labels, minlength=self.classes)

    @property
    def trained(self) -> Tensor:
        """The classes that have a training image (K,), ascending."""
        return self.counts.nonzero()[:, 0]

    @property
    def class_weights(self) -> Tensor:
        """Weights (C,) that make each class count the same, 1 on average over images; ones unless asked for."""
        if self.balance != "weights":
            return torch.ones(self.classes)
        weights = len(self.train) / (len(self.trained) * self.counts)
        return weights.where(self.counts > 0, 0.0)


class Head(nn.Module):
    """Class logits of image features. Subclasses are built from numbers alone, and filled from a file by name.

    `seen_bias` (C,) is subtracted from the logits: calibrated stacking (Chao et al. 2016, arXiv:1605.04253).
    """

    seen_bias: Tensor

    def __init__(self, classes: int, **config):
        super().__init__()
        self.config = {"classes": classes, **config}
        self.register_buffer("seen_bias", torch.zeros(classes))

    def logits(self, features_ND: Tensor) -> Tensor:
        """(N, D) -> (N, C), before the bias."""
        raise NotImplementedError

    def forward(self, features_ND: Tensor) -> Tensor:
        return self.logits(features_ND.float()) - self.seen_bias

    @torch.no_grad()
    def probs(self, features_ND: Tensor) -> Tensor:
        """Class probabilities (N, D) -> (N, C), rows sum to 1."""
        self.eval()
        return torch.cat([self(rows) for rows in features_ND.split(4096)]).softmax(dim=1)


METHODS = Registry(
    "method",
    given=2,  # data, choice
    head=None,  # what a saved one is filled into
    needs_text=False,  # captions of the classes
    one_space=False,  # image features and captions must be of one model
    for_unseen=False,  # classes without a training image are known by their text
    samples=True,  # it draws batches, so that classes can be drawn equally often
    refit=False,  # once its setting is chosen, it is fitted again with the validation images
    in_kshot=None,  # its column in a k-shot table; None: only if it is asked for
)
method = METHODS.register


def having(**traits) -> list[str]:
    """The names of the methods with these traits."""
    return [name for name, method in METHODS.items() if all(getattr(method, k) == v for k, v in traits.items())]


def check_balance(method: tuple[str, Any], balance: Balance, where: str) -> None:
    """UserError for balanced sampling where nothing is sampled."""
    if balance == "sampling" and not METHODS.find(method[0], where).samples:
        raise Mismatch(
            f"{where}: balance: {method[0]} looks at all images at once and samples none; write 'balance: weights'"
        )


def fit(method: tuple[str, Any], data: TrainingData, choice, where: str) -> None:
    """Run a method; what it makes is in `choice`. Its random numbers depend on `data.seed` alone."""
    name = method[0]
    function, arguments = METHODS.bind(method, where)
    if function.needs_text and data.captions is None:
        without = ", ".join(having(needs_text=False))
        raise Mismatch(f"{where}: method {name} needs a text tower, and the model has none; methods without: {without}")
    if function.one_space and data.captions.features.shape[1] != data.train.features.shape[1]:
        raise Mismatch(
            f"{where}: method {name} compares images with captions of the same model; for captions of "
            "another one take cosine"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data.seed)
        function(data, choice, **arguments)


def refit(
    method: tuple[str, Any], data: TrainingData, validation: Examples, settings: list[dict], where: str, tell
) -> list[Head]:
    """The heads of chosen settings, fitted on training and validation images together."""
    from ._choice import Replay

    replay = Replay(settings, tell)
    fit(method, replace(data, train=data.train.joined(validation)), replay, where)
    return replay.heads


def save(path: Path, method: str, head: Head, class_names: tuple[str, ...]) -> None:
    """Write a head as safetensors; equal heads give equal bytes."""
    described = {"method": method, "config": head.config, "class_names": list(class_names)}
    tensors = {name: tensor.contiguous() for name, tensor in head.state_dict().items()}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, {KEY: json.dumps(described, sort_keys=True)})


def describe(path: Path, where: str) -> dict:
    """Method, config and class names of a saved head, without its tensors. UserError when it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[KEY])
    except FileNotFoundError:
        raise NotFound(f"{where}: no head at {path}; train it again") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise Damaged(f"{where}: {path} is no whole head ({error}); remove its folder and train again") from None


def load(path: Path, where: str) -> Head:
    """A saved head, ready for `probs`."""
    described = describe(path, where)
    head = METHODS.find(described["method"], f"{where}: {path}").head(**described["config"])
    head.load_state_dict(load_file(path))
    return head.eval()


def columns(trained_on: list[str], wanted: tuple[str, ...], where: str) -> list[int]:
    """Which of a head's columns are the wanted classes, by name; capitals do not matter.

    UserError unless the two have the same classes, in any order.
    """
    known = {name.casefold(): number for number, name in enumerate(trained_on)}
    absent = [name for name in wanted if name.casefold() not in known]
    extra = [name for name in trained_on if name.casefold() not in {name.casefold() for name in wanted}]
    if absent or extra:
        raise Mismatch(
            f"{where}: a head gives the classes it was trained on. Not among them: {absent[:5]}; not asked "
            f"for: {extra[:5]}. Train on data with the same classes, or give the data set's "
            "'classes: {published: name}'"
        )
    return [known[name.casefold()] for name in wanted]


def with_bias(head: Head, seen: Tensor, bias: float) -> Head:
    """The head with `bias` subtracted from the logits of the seen classes (a mask (C,))."""
    head.seen_bias = bias * seen.float()
    return head


import_modules(__name__)  # the methods register themselves
