"""Drawings of feature spaces: t-SNE of images and texts together, principal components."""

import numpy as np
from openTSNE import TSNE
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from ..page import Figure, Section, charts
from ..result import Result
from ..spaces import Space

LEAST = 5  # images from which features can be drawn


def features(result: Result) -> Section | None:
    """How the images lie among each other and to the classes' texts, as the members see them."""
    spaces = [space for space in result.spaces if len(space.features) >= LEAST]
    if not spaces:
        return None
    weights = {member.name: member.weight for member in result.members}
    space = max(spaces, key=lambda space: weights.get(space.member) or 0)
    points, prototypes = embedded(space)
    labels = (result.labels if result.truth is None else result.truth)[space.rows]
    what = "predicted" if result.truth is None else "true"
    drawn = "" if len(space.rows) == len(result.labels) else f" {len(space.rows):,} of {len(result.labels):,} images."
    caption = (
        f"t-SNE of {space.member}: a dot is an image in the colour of its {what} class, a diamond the mean text "
        f"feature of a class (both sides centred).{drawn}"
    )
    svg = charts.scatter(points, labels, prototypes, result.class_names)
    curves = {space.member: explained_variance(space.features) for space in spaces}
    note = "Groups far from their diamond are images that the prompts do not describe."
    return Section(
        "Features",
        note,
        [
            Figure(svg, caption, width=720),
            Figure(charts.elbow(curves), "How many principal components the image features use.", width=480),
        ],
    )


def explained_variance(features: np.ndarray) -> np.ndarray:
    """Cumulated share of variance by number of principal components."""
    return np.cumsum(PCA(random_state=0).fit(features).explained_variance_ratio_)


def embedded(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """t-SNE of a space's images and text prototypes together: (S, 2) and (C, 2), or (0, 2) without prototypes.

    Image and text features of CLIP lie in two narrow cones apart from each other (Liang et al. 2022,
    arXiv:2203.02053); each side is centred on its own mean first, or all texts would be one far island.
    """
    parts = [space.features] + ([] if space.prototypes is None else [space.prototypes])
    together = np.concatenate([normalize(part - part.mean(axis=0)) for part in parts])
    reduced = PCA(min(50, *together.shape), random_state=0).fit_transform(together)
    perplexity = min(30, (len(reduced) - 1) / 3)
    points = np.asarray(TSNE(perplexity=perplexity, random_state=0, negative_gradient_method="bh").fit(reduced))
    return points[: len(space.features)], points[len(space.features) :]
