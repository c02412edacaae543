"""The map: images and class texts in a plane, as one member sees them; drawn once and kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.digests import digest_of
from ..core.files import atomic_file
from ..report.spaces import Space

MOST = 20_000  # images for which t-SNE is drawn; more lie in the plane of two principal components
LEAST = 5
SAMPLE = 20_000  # images that the principal components are of


def digest(member: str, features: str, class_names: Sequence[str]) -> str:
    """Of what a map is of: `features` is the digest of the images' features.

    The texts are where the prompts put them when it was drawn: it is not drawn again for other prompts.
    """
    return digest_of({"map": 2, "member": member, "features": features, "classes": list(class_names)})


def quick(parts: Sequence[Tensor], text_CD: Tensor) -> np.ndarray:
    """(N + C, 2) float32: two principal components of the images, on which the texts, centred apart, are put as well.

    The images (N, D) come in parts. Image and text features lie in two cones apart from each other, so each side is
    centred on its own mean.
    """
    step = max(1, sum(map(len, parts)) // SAMPLE)
    some = torch.cat([part[::step] for part in parts]).float()
    mean = some.mean(dim=0)
    torch.manual_seed(0)
    _, _, axes = torch.pca_lowrank(some - mean, q=min(2, *some.shape), center=False)
    found = torch.cat([*((part.float() - mean) @ axes for part in parts), (text_CD - text_CD.mean(dim=0)) @ axes])
    return _scaled(torch.nn.functional.pad(found, (0, 2 - found.shape[1])).numpy())


def drawn(path: Path, member: str, parts: Sequence[Tensor], text_CD: Tensor) -> np.ndarray:
    """(N + C, 2) float32 in a square of side 2: the t-SNE of few images, else `quick`; kept in `path`."""
    from ..report.sections.features import embedded

    total = sum(map(len, parts))
    if LEAST <= total <= MOST:
        images = torch.cat(list(parts)).float().numpy()
        points, texts = embedded(Space(member, np.arange(total), images, text_CD.numpy()))
        found = _scaled(np.concatenate([points, texts]).astype(np.float32))
    else:
        found = quick(parts, text_CD)
    for other in path.parent.glob("map-*.npy"):
        other.unlink(missing_ok=True)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, found)
    return found


def load(path: Path) -> np.ndarray | None:
    """What `drawn` kept; None where there is nothing, or it is damaged."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None


def _scaled(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    span = max(float((high - low).max()), 1e-9)
    return ((points - (low + high) / 2) * (2 / span)).astype(np.float32)
