"""Gaussian discriminant around the unlabelled images, with the text's predictions as its start and anchor."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from . import Evidence, step, unit_rows
from .mixture import SETTLED, Count, Weight, moved, settled
from .prior import chunks

Ridge = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@step(uses="test_set")
def discriminant(
    probs_NC: Tensor, evidence: Evidence, text_weight: Weight = 1.0, ridge: Ridge = 1.0, iterations: Count = 50
) -> Tensor:
    """Classes as Gaussians with one full covariance, fitted by EM to unlabelled images; (N, C) -> (N, C).

    The classifier is that of Wang et al. 2024 (arXiv 2402.04087), which fits it to labelled images: w_k f + b_k with
    w_k = sigma^-1 mu_k and b_k = -mu_k sigma^-1 mu_k / 2. Here images count by z, with z = the given probabilities p at
    first and then softmax(text_weight log p + w_k f + b_k), so that the text stays an anchor, as in TransCLIP-ZS
    (Zanella et al. 2024, arXiv 2406.01837). sigma = the mean of (f - mu_k)(f - mu_k)' over images, plus `ridge` times
    its mean variance on the diagonal. Unlike `transclip` it sees correlations of features and no neighbours. A class
    without images keeps its mean. It ends when a round hardly moves z, or is NotConverged after `iterations`.
    O(N D^2) once, then O(N C D + D^3) a round.
    """
    log_NC = unit_rows(probs_NC).log()
    features_ND = evidence.image_features_ND.float()
    features_ND = features_ND - features_ND.mean(dim=0)  # changes no discriminant, and loses fewer digits
    second_DD = sum((part.T @ part).double() for part in chunks(features_ND))
    mean_CD = features_ND.new_zeros(log_NC.shape[1], features_ND.shape[1])
    z_NC = log_NC.exp()
    for _ in range(iterations):
        before_NC = z_NC
        size_C1 = z_NC.sum(dim=0)[:, None]
        mean_CD = torch.where(size_C1 > 1e-6, z_NC.T @ features_ND / size_C1.clamp_min(1e-6), mean_CD)
        weight_CD = shrunk_solve(second_DD, mean_CD.double(), size_C1.double(), ridge)
        offset_C = (weight_CD * mean_CD).sum(dim=1) / 2
        z_NC = (text_weight * log_NC + features_ND @ weight_CD.T - offset_C).softmax(dim=1)
        if moved(z_NC, before_NC) <= SETTLED:
            return z_NC
    return settled(z_NC, before_NC, iterations)


def shrunk_solve(second_DD: Tensor, mean_CD: Tensor, size_C1: Tensor, ridge: float) -> Tensor:
    """sigma^-1 mu_k as float32 (C, D), of features whose products sum to `second_DD`; all features equal give 0."""
    covariance_DD = (second_DD - mean_CD.T @ (size_C1 * mean_CD)) / size_C1.sum()
    shrinkage = ridge * covariance_DD.diagonal().mean().clamp_min(1e-12)
    covariance_DD.diagonal().add_(shrinkage)
    return torch.linalg.solve(covariance_DD, mean_CD.T).T.float()
