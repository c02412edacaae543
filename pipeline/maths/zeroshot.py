"""Tensor maths of zero-shot classification, and nothing else.

Shape suffixes: N images, V views or Q vectors of an image, P prompts (columns), C classes, D feature dimensions.
"""

import functools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..core.registry import Registry

TINY = torch.finfo(torch.float32).tiny

# how members are averaged: the values of `space`, functions (their probabilities, shares that sum to 1) -> blend (N, P)
SPACES = Registry("space", given=2, uses="image")


def normalise(features: Tensor) -> Tensor:
    """Rows of length 1, float32; (..., D) -> (..., D)."""
    features = features.float()
    return features / features.norm(dim=-1, keepdim=True)


def prompt_probs(image_features_ND: Tensor, text_features_PD: Tensor, logit_scale: float) -> Tensor:
    """Softmax over all P columns of logit_scale x cosine; (N, D), (P, D) -> (N, P) float32.

    One softmax over the prompts of all classes together lets a prompt that fits
    no image drop out, instead of dragging down its class.
    """
    return prompt_logits(image_features_ND, text_features_PD, logit_scale).softmax(dim=-1)


def prompt_logits(image_features_ND: Tensor, text_features_PD: Tensor, logit_scale: float) -> Tensor:
    """logit_scale x cosine; (N, D), (P, D) -> (N, P) float32.

    Features are L2-normalised. Images may have Q vectors each, (N, Q, D): the best of them counts.
    """
    cosine = image_features_ND.float() @ text_features_PD.float().T
    cosine_NP = cosine.amax(dim=1) if cosine.ndim == 3 else cosine
    return logit_scale * cosine_NP


def confident_views(probs_NVP: Tensor, keep: int) -> Tensor:
    """Mean probabilities of the `keep` views of each image that are surest, by entropy; (N, V, P) -> (N, P)."""
    entropy_NV = -(probs_NVP * probs_NVP.clamp_min(TINY).log()).sum(dim=-1)
    kept_NK = entropy_NV.topk(keep, dim=1, largest=False).indices
    return probs_NVP.gather(1, kept_NK[:, :, None].expand(-1, -1, probs_NVP.shape[2])).mean(dim=1)


def class_text_features(text_features_PD: Tensor, prompt_class_P: Tensor, weight_P: Tensor, classes: int) -> Tensor:
    """Weighted mean of each class's text features, normalised again; (P, D) -> (C, D).

    The classifier of CLIP (Radford et al. 2021, arXiv:2103.00020, section 3.1.4).
    """
    sums_CD = torch.zeros(classes, text_features_PD.shape[1])
    sums_CD.index_add_(0, prompt_class_P, text_features_PD.float() * weight_P[:, None])
    return normalise(sums_CD)


def temper(probs_NP: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature) of rows that are softmax(logits); (N, P) -> (N, P).

    The logarithm of a softmax is its logits up to a constant of the row, which the second softmax takes out.
    Above 1 flattens, below 1 sharpens. Probabilities below the smallest normal float32 count as that.
    """
    if temperature == 1:
        return probs_NP
    return (probs_NP.clamp_min(TINY).log() / temperature).softmax(dim=-1)


def matching_temperature(confidence: Callable[[float], float], target: float, limit: float = 256.0) -> float:
    """The temperature at which `confidence` (which falls with it) is `target`, to about 1e-5 of itself.

    1 / limit or limit where none in between does. Brent's method on its logarithm: about 9 evaluations, each of which
    may be a pass over all images.
    """
    from scipy.optimize import brentq

    @functools.cache
    def error(logarithm: float) -> float:
        return confidence(math.exp(logarithm)) - target

    if abs(error(0.0)) <= 1e-6:
        return 1.0
    far = math.copysign(math.log(limit), error(0.0))
    if error(far) * error(0.0) > 0:
        return math.exp(far)
    return math.exp(brentq(error, 0.0, far, xtol=1e-5))


def blend(member_probs: list[Tensor], weights: list[float], space: str = "probability") -> Tensor:
    """The members' probabilities, averaged in a space; each (N, P) -> (N, P). Only ratios of weights matter."""
    total = sum(weights)
    return SPACES[space](member_probs, [weight / total for weight in weights])


@SPACES.register
def probability(member_probs: list[Tensor], shares: list[float]) -> Tensor:
    """Their weighted mean."""
    return _mean(member_probs, shares)


@SPACES.register
def log(member_probs: list[Tensor], shares: list[float]) -> Tensor:
    """The weighted mean of their logarithms, as rows that sum to 1 again.

    The logarithmic opinion pool (Genest and Zidek 1986): a member that is sure that it is not so has a veto, where the
    plain mean lets one that is sure it is decide.
    """
    return _mean((probs_NP.clamp_min(TINY).log() for probs_NP in member_probs), shares).softmax(dim=-1)


def _mean(values: Iterable[Tensor], shares: list[float]) -> Tensor:
    parts = (share * value for value, share in zip(values, shares, strict=True))
    mean = next(parts)
    for part in parts:
        mean += part
    return mean


def all_finite(values: Tensor) -> bool:
    """Whether no value is infinite or not a number. One pass without a mask: both reach the extremes."""
    if not values.is_contiguous():
        values = values.mT  # of a table that lies by columns, in the order in which it lies
    return bool(torch.stack(values.aminmax()).isfinite().all()) if values.numel() else True


def threshold(probs_NP: Tensor, limit: float) -> Tensor:
    """p where p > limit, else 0; not renormalised. A limit of 0 changes nothing."""
    return torch.nn.functional.threshold(probs_NP, limit, 0.0)


def pool(probs_NP: Tensor, prompt_class_P: Tensor, weight_P: Tensor, classes: int, how: str) -> Tensor:
    """Prompt columns -> classes; (N, P) -> (N, C) by weighted mean, or by median or max of each class's columns.

    Columns may be in any order and classes may have any number of them, but at least one. Median is the
    middle value, or the mean of the two middle values. A column of weight 0 counts nowhere; other unequal
    weights have a meaning only for the mean (ValueError else).
    """
    kept = weight_P > 0
    if not kept.all():  # the choice is a copy
        # of rows that lie together where columns do
        probs_NP, prompt_class_P, weight_P = probs_NP.T[kept].T, prompt_class_P[kept], weight_P[kept]
    if how == "mean":
        total_C = torch.zeros(classes).index_add_(0, prompt_class_P, weight_P)
        parts_NP = probs_NP if (weight_P == 1).all() else probs_NP * weight_P
        # along rows that lie together: the same sums in the same order, three times as fast
        sums_CN = probs_NP.new_zeros(classes, len(probs_NP)).index_add_(0, prompt_class_P, parts_NP.T.contiguous())
        return sums_CN.T.contiguous() / total_C
    if (weight_P != weight_P[0]).any():
        raise ValueError(f"prompt weights need pooling 'mean' or 'embedding', not {how!r}")
    reduce = {"max": lambda columns: columns.amax(dim=1), "median": _median}[how]
    return torch.stack([reduce(probs_NP[:, prompt_class_P == label]) for label in range(classes)], dim=1)


def class_scores(probs_NP: Tensor, prompt_class_P: Tensor, weight_P: Tensor, classes: int, how: str) -> Tensor:
    """`pool`, of logarithms for logit_mean, logit_median and logit_max; (N, P) -> (N, C).

    The logarithm of a probability is its logit up to a constant of the row, which changes no order.
    """
    values_NP, reduction = _in_space(probs_NP, how)
    return pool(values_NP, prompt_class_P, weight_P, classes, reduction)


def _in_space(probs_NP: Tensor, how: str) -> tuple[Tensor, str]:
    space, _, reduction = how.rpartition("_")
    return (probs_NP.clamp_min(TINY).log() if space == "logit" else probs_NP), reduction


def class_probs(probs_NP: Tensor, prompt_class_P: Tensor, weight_P: Tensor, classes: int, how: str) -> Tensor:
    """`class_scores` as rows that sum to 1, where the softmax takes the constant of a row out again."""
    scores_NC = class_scores(probs_NP, prompt_class_P, weight_P, classes, how)
    if how.startswith("logit_"):
        return scores_NC.softmax(dim=-1)
    scores_NC = scores_NC.clamp_min(TINY)
    return scores_NC / scores_NC.sum(dim=-1, keepdim=True)


def scores_without_each(
    probs_NP: Tensor, prompt_class_P: Tensor, weight_P: Tensor, classes: int, how: str
) -> tuple[Tensor, Tensor]:
    """`class_scores` (N, C), and the score of each column's class when that column is left out (N, P); float64.

    The only column of a class stays, and one of weight 0 changes nothing. In double precision, because the mean
    without a column is a difference. Takes O(N P log P) in all, not a pooling for each column.
    """
    scores_NC = class_scores(probs_NP.double(), prompt_class_P, weight_P, classes, how)
    values_NP, reduction = _in_space(probs_NP.double(), how)
    without_NP = scores_NC[:, prompt_class_P]
    for label in range(classes):
        own = ((prompt_class_P == label) & (weight_P > 0)).nonzero()[:, 0]
        if len(own) < 2:
            continue
        if reduction == "mean":
            weighted = values_NP[:, own] * weight_P[own]
            without_NP[:, own] = (weighted.sum(dim=1, keepdim=True) - weighted) / (weight_P[own].sum() - weight_P[own])
        else:
            middle = ((len(own) - 2) // 2, (len(own) - 1) // 2)
            places = middle if reduction == "median" else (len(own) - 2,) * 2
            without_NP[:, own] = _ordered_without_each(values_NP[:, own], places)
    return scores_NC, without_NP


def _ordered_without_each(columns: Tensor, places: tuple[int, int]) -> Tensor:
    """Mean of the values at two places of a row's order once each column is left out; (N, K) -> (N, K)."""
    ordered, order = columns.sort(dim=1)
    rank = order.argsort(dim=1)
    first, second = (torch.where(rank > k, ordered[:, k, None], ordered[:, k + 1, None]) for k in places)
    return (first + second) / 2


def labels_without_each(scores_NC: Tensor, without_NP: Tensor, prompt_class_P: Tensor) -> Tensor:
    """The label of each image when each column is left out of its class; (N, C), (N, P) -> (N, P).

    As argmax does, the first of equal classes is taken.
    """
    classes = scores_NC.shape[1]
    best = scores_NC.max(dim=1)
    others = scores_NC.scatter(1, best.indices[:, None], -torch.inf).max(dim=1)
    is_best = torch.arange(classes) == best.indices[:, None]
    rival_NP = torch.where(is_best, others.values[:, None], best.values[:, None])[:, prompt_class_P]
    rival_label_NP = torch.where(is_best, others.indices[:, None], best.indices[:, None])[:, prompt_class_P]
    wins = (without_NP > rival_NP) | ((without_NP == rival_NP) & (prompt_class_P < rival_label_NP))
    return torch.where(wins, prompt_class_P, rival_label_NP)


def _median(columns: Tensor) -> Tensor:
    ordered = columns.sort(dim=1).values
    middle = columns.shape[1] // 2
    return ordered[:, middle] if columns.shape[1] % 2 else ordered[:, middle - 1 : middle + 1].mean(dim=1)
