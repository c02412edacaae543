"""The classifier as a function: images and candidate labels in, scores out.

from pipeline import load_classifier
classifier = load_classifier("openai-b32")
classifier("cat.jpg", candidate_labels=["cat", "dog"])      # [{"score": 0.98, "label": "cat"}, ...]
"""

import functools
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import models
from .chain import features, probs
from .chain.task import Runtime
from .core.errors import Damaged, Unavailable, UserError
from .images.decoding import decode, read, to_rgb
from .images.ops import compile_recipe
from .maths import zeroshot
from .recipes import Project
from .recipes.prompts import Shared

TEMPLATE = "a photo of a {}."
CHANNELS = (1, 3, 4)
URL_TIMEOUT = 30  # seconds
URL_BYTES = 100_000_000


def load_classifier(
    model: str,
    *,
    preprocess: str | None = None,
    root: Path | str = ".",
    device: str = "auto",
    dtype: str = "auto",
    batch: int | None = None,
) -> "Classifier":
    """A classifier with an entry of models.yaml, its images prepared by `preprocess` (None: the model's own)."""
    return Classifier(Runtime(Project(root), device_name=device, dtype_name=dtype, batch_size=batch), model, preprocess)


class Classifier:
    """Callable; keeps its model, each tower from when it is first needed, and the features of its latest labels."""

    def __init__(self, runtime: Runtime, model: str, preprocess: str | None = None):
        self.runtime, self.name = runtime, model
        self.member = runtime.project.member(model, preprocess)
        recipe = self.member.preprocess
        self._recipe = runtime.project.preprocess(recipe)
        self._prepare = compile_recipe(self._recipe, runtime.project.where("preprocess", recipe), runtime.place)
        self._tower = functools.cache(self._load)
        self._text = functools.lru_cache(maxsize=64)(self._encode_labels)

    def __call__(
        self,
        images,
        candidate_labels: Sequence[str],
        hypothesis_template: str | Sequence[str] = TEMPLATE,
        top_k: int | None = None,
    ) -> list:
        """The labels of one image, best first, as [{"score", "label"}]; for a list of images a list of those.

        An image is a path, an http(s) URL, a PIL image, or an array or tensor (height, width[, channels]) or
        (channels, height, width) of 0..255 integers or 0..1 floats. With several templates a label is the mean
        of its text features. Scores are a softmax over the labels; of models trained with a sigmoid loss each
        label's own probability.
        """
        many = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
        found, batch = [], self.runtime.batch
        every = list(images) if many else [images]
        for start in range(0, len(every), batch):
            pixels = [self.pixels(image) for image in every[start : start + batch]]
            found += self.classify(pixels, candidate_labels, hypothesis_template, top_k)
        return found if many else found[0]

    def pixels(self, image) -> torch.Tensor:
        """One image in any of the accepted forms -> uint8 (3, S, S), with V views (V, 3, S, S)."""
        return torch.from_numpy(self._prepare(as_image(image)))

    def classify(self, pixels: list[torch.Tensor], labels, templates=TEMPLATE, top_k: int | None = None) -> list:
        """One batch of what `pixels` gives; [[{"score", "label"}]]."""
        if not pixels:
            return []
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k: {top_k} is not a positive number")
        labels, templates = _checked(labels, templates)
        scores = self._scores(torch.stack(pixels), self._text(labels, templates))
        best, at = scores.sort(dim=1, descending=True, stable=True)
        return [
            [{"score": score, "label": labels[label]} for score, label in zip(*row, strict=True)]
            for row in zip(best[:, :top_k].tolist(), at[:, :top_k].tolist(), strict=True)
        ]

    def _scores(self, pixels: torch.Tensor, text_CD: torch.Tensor) -> torch.Tensor:
        model = self._tower("image")
        image_ND = features.Views(model, self._recipe.view_pooling).encode_image(pixels).cpu()
        if not image_ND.isfinite().all():
            why = model.why_not_finite(pixels.flatten(0, -4))
            raise Damaged(f"{self.name}: features are not finite: {why}")
        if model.logit_bias is None:
            return probs.view_probs(self._recipe, image_ND, text_CD, model.logit_scale)
        scores = (model.logit_scale * image_ND.float() @ text_CD.T + model.logit_bias).sigmoid()
        return scores if scores.ndim == 2 else scores.mean(dim=1)  # sigmoids of views: each label is on its own

    def _encode_labels(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> torch.Tensor:
        prompts = [template.replace("{}", label) for label in labels for template in templates]
        model, batch = self._tower("text"), self.runtime.batch
        encoded = [model.encode_text(prompts[start : start + batch]).cpu() for start in range(0, len(prompts), batch)]
        owner = torch.arange(len(labels)).repeat_interleave(len(templates))
        return zeroshot.class_text_features(torch.cat(encoded), owner, torch.ones(len(prompts)), len(labels))

    def _load(self, tower: models.Tower) -> models.Model:
        project = self.runtime.project
        entry = project.model(self.name)
        model = models.load(self.name, entry, project.root, tower, self.runtime.device, self.runtime.dtype)
        if tower == "image":
            features.check_recipe(project, self.member, model.image_size, model.resize_mode)
        return model


def _checked(labels: Sequence[str], templates: str | Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    labels = (labels,) if isinstance(labels, str) else tuple(labels)
    if not labels or not all(isinstance(label, str) and label.strip() for label in labels):
        raise UserError(f"candidate_labels: give a list of names, found {list(labels)!r}")
    if len(set(labels)) != len(labels):
        raise UserError(f"candidate_labels: {next(name for name in labels if labels.count(name) > 1)!r} is there twice")
    templates = [templates] if isinstance(templates, str) else list(templates)
    if not templates:
        raise UserError("hypothesis_template: give at least one template, e.g. 'a photo of a {}.'")
    return labels, Shared.parse({"templates": templates}, "hypothesis_template").templates


def as_image(image) -> Image.Image:
    """Any accepted form of an image as 8-bit RGB; UserError says what is wrong with it."""
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return read(_fetched(image), name=image).image
    if isinstance(image, (str, Path, Image.Image)):
        return decode(image)
    if isinstance(image, (np.ndarray, torch.Tensor)):
        return _from_array(image)
    raise UserError(f"an image must be a path, URL, PIL image, array or tensor, not {type(image).__name__}")


def _fetched(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "zero-shot-pipeline"})
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as answer:
            content = answer.read(URL_BYTES + 1)
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot read image {url}: {error}") from None
    if len(content) > URL_BYTES:
        raise Damaged(f"{url}: larger than {URL_BYTES:,} bytes")
    return content


def _from_array(array: np.ndarray | torch.Tensor) -> Image.Image:
    """Channels are looked for where the library puts them: last in an array, first in a tensor, then the other way."""
    first = isinstance(array, torch.Tensor)
    values = array.detach().cpu().numpy() if first else array
    if values.ndim == 3:
        leads = values.shape[0] in CHANNELS and (first or values.shape[2] not in CHANNELS)
        values = values.transpose(1, 2, 0) if leads else values
    elif values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in CHANNELS or not values.size:
        raise UserError(
            f"an image array of shape {tuple(array.shape)}; give (height, width[, channels]) "
            "or (channels, height, width)"
        )
    top = 1 if np.issubdtype(values.dtype, np.floating) else 255
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        raise UserError(f"an image array of {values.dtype} must hold values from 0 to {top}")
    eight_bit = (values * 255).round() if top == 1 else values
    eight_bit = np.ascontiguousarray(eight_bit.astype(np.uint8))
    return to_rgb(Image.fromarray(eight_bit[:, :, 0] if values.shape[2] == 1 else eight_bit))
