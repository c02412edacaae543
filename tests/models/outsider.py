"""A family and a head method that are no part of the package, as a user would bring them."""

import torch
from safetensors.torch import load_file

from pipeline.models import _checks
from pipeline.models._tower import Facts, Tower
from pipeline.models.family import Family, Wanted
from pipeline.models.heads import Head as Base
from pipeline.models.heads import Positive, TrainingData, method

FAMILY = Family(text=False, any_size=True, weights=("colours.safetensors",))


class Colours(torch.nn.Module):
    """Mean colours of an image, mixed by a matrix."""

    def __init__(self, mix):
        super().__init__()
        self.mix = torch.nn.Parameter(mix, requires_grad=False)

    def forward(self, pixels):
        return pixels.mean(dim=(2, 3)) @ self.mix.to(pixels.dtype)


def load(wanted: Wanted) -> Tower:
    entry = wanted.entry
    _checks.declared(entry, ("size", "mean", "std", "resize_mode"), wanted.where)
    module = Colours(load_file(wanted.path / FAMILY.weights[0])["mix"])
    facts = Facts(entry.size, entry.mean, entry.std, entry.resize_mode)
    return Tower(wanted, module, facts, forward_image=lambda module, pixels: module(pixels))


class Head(Base):
    def __init__(self, classes: int, dimensions: int, sharpness: float):
        super().__init__(classes, dimensions=dimensions, sharpness=sharpness)
        self.register_buffer("means", torch.zeros(classes, dimensions))

    def logits(self, features_ND):
        return -self.config["sharpness"] * torch.cdist(features_ND, self.means)


@method(head=Head, samples=False, in_kshot=9)
def nearest_mean(data: TrainingData, choice, sharpness: Positive = 10.0) -> None:
    """The class whose mean feature is nearest."""
    head = Head(data.classes, data.train.features.shape[1], sharpness)
    for label in data.trained:
        head.means[label] = data.train.features[data.train.labels == label].mean(dim=0)
    choice.see(head, {"sharpness": sharpness})
