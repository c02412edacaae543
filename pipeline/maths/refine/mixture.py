"""Gaussian mixtures in feature space, with the text's predictions as the anchor of the assignments."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from . import GRAPH, Evidence, NotConverged, step, unit_rows
from .neighbours import affinity

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SETTLED = 0.02  # mean share of an image's probability that the last round may still have moved


@step(uses="test_set", most=GRAPH)
def transclip(
    probs_NC: Tensor,
    evidence: Evidence,
    text_weight: Weight = 1.0,
    neighbours: Count = 3,
    iterations: Count = 10,
    assignments: Count = 5,
    confident: Count = 8,
) -> Tensor:
    """TransCLIP-ZS (Zanella et al. 2024, arXiv 2406.01837); (N, C) -> (N, C).

    A class is a Gaussian of image features around mu_k with one diagonal covariance for all. In turns
    z_i ~ y_i^text_weight exp(log p_i + sum_j w_ij z_j), `assignments` times, with w the affinity of nearest neighbours
    and y the given probabilities; mu_k = the mean of the features weighted by z_k; sigma = the mean squared distance
    to the means. It begins with the means of the `confident` surest images of each class and sigma = 1 / D.
    An empty class keeps its mean. Assumes that most classes have images. O(N^2 D) for the neighbours, in chunks, then
    O(N C D) a round.
    """
    text_NC = unit_rows(probs_NC)
    features_ND = evidence.image_features_ND.float()
    features_ND = features_ND - features_ND.mean(dim=0)  # distances do not change, and lose fewer digits
    affinity_NN = affinity(evidence.image_features_ND, neighbours)
    surest_KC = text_NC.topk(min(confident, len(text_NC)), dim=0).indices
    mean_CD, variance_D = features_ND[surest_KC].mean(dim=0), features_ND.new_full(features_ND.shape[1:], 1.0)
    variance_D = variance_D / features_ND.shape[1]
    z_NC = text_NC
    for _ in range(iterations):
        before_NC = z_NC
        known_NC = text_weight * text_NC.log() + log_density(features_ND, mean_CD, variance_D.expand_as(mean_CD))
        z_NC = assign(z_NC, known_NC, affinity_NN, assignments)
        size_C = z_NC.sum(dim=0)[:, None]
        mean_CD = torch.where(size_C > 1e-6, z_NC.T @ features_ND / size_C.clamp_min(1e-6), mean_CD)
        variance_D = (squares(z_NC, features_ND, mean_CD).sum(dim=0) / len(z_NC)).clamp_min(1e-9)
    return settled(z_NC, before_NC, iterations)


@step(uses="test_set", most=GRAPH)
def stata(
    probs_NC: Tensor,
    evidence: Evidence,
    anchor: Weight = 1.0,
    neighbours: Count = 3,
    iterations: Count = 10,
    assignments: Count = 5,
) -> Tensor:
    """StatA (Zanella et al. 2025, arXiv 2501.03729); (N, C) -> (N, C).

    The mixture of `transclip`, but a class has its own diagonal covariance, and both it and the mean are drawn by
    `anchor` times the divergence KL(N(t_k, s) || N(mu_k, sigma_k)) to the text's Gaussian, whose minimum is
    mu_k = beta_k v_k + (1 - beta_k) t_k and sigma_k = beta_k T_k + (1 - beta_k) (s + (t_k - mu_k)^2) with
    beta_k = n_k / (n_k + anchor), v_k the weighted mean of its images, T_k their mean squared distance to mu_k. So a
    class without images stays at its text, far from all images, and takes none. s: the mean squared distance of
    images to the text features, weighted by the given probabilities. O(N^2 D) in chunks, then O(N C D) a round.
    """
    text_NC = unit_rows(probs_NC)
    centre_D = evidence.image_features_ND.float().mean(dim=0)
    features_ND = evidence.image_features_ND.float() - centre_D
    anchor_CD = evidence.text_features_CD.float() - centre_D
    affinity_NN = affinity(evidence.image_features_ND, neighbours)
    anchor_variance_D = squares(text_NC, features_ND, anchor_CD).sum(dim=0) / len(text_NC)
    z_NC = text_NC
    for _ in range(iterations):
        before_NC = z_NC
        size_C = z_NC.sum(dim=0)[:, None]
        total_C = size_C + anchor + 1e-9
        mean_CD = (z_NC.T @ features_ND + anchor * anchor_CD) / total_C
        pulled_CD = anchor * (anchor_variance_D + (anchor_CD - mean_CD) ** 2)
        variance_CD = ((squares(z_NC, features_ND, mean_CD) + pulled_CD) / total_C).clamp_min(1e-9)
        known_NC = text_NC.log() + log_density(features_ND, mean_CD, variance_CD)
        z_NC = assign(z_NC, known_NC, affinity_NN, assignments)
    return settled(z_NC, before_NC, iterations)


def log_density(features_ND: Tensor, mean_CD: Tensor, variance_CD: Tensor) -> Tensor:
    """log N(f_i; mu_k, diag sigma_k) without the constant; (N, C)."""
    precision_CD = 1 / variance_CD
    distance_NC = (
        (features_ND**2) @ precision_CD.T
        - 2 * features_ND @ (mean_CD * precision_CD).T
        + (mean_CD**2 * precision_CD).sum(dim=1)
    )
    return -0.5 * (distance_NC + variance_CD.log().sum(dim=1))


def squares(z_NC: Tensor, features_ND: Tensor, mean_CD: Tensor) -> Tensor:
    """sum_i z_ik (f_i - mu_k)^2 for every class and dimension, (C, D), without an (N, C, D)."""
    size_C = z_NC.sum(dim=0)[:, None]
    first_CD, second_CD = z_NC.T @ features_ND, z_NC.T @ features_ND**2
    return (second_CD - 2 * mean_CD * first_CD + size_C * mean_CD**2).clamp_min(0)


def assign(z_NC: Tensor, known_NC: Tensor, affinity_NN: Tensor, times: int) -> Tensor:
    """z = softmax(known + affinity z), `times` times."""
    for _ in range(times):
        z_NC = (known_NC + torch.sparse.mm(affinity_NN, z_NC)).softmax(dim=1)
    return z_NC


def settled(z_NC: Tensor, before_NC: Tensor, iterations: int) -> Tensor:
    """z, if the last round hardly changed it; NotConverged else."""
    check_settled(float((z_NC - before_NC).abs().sum(dim=1).mean()) / 2, iterations)
    return z_NC


def check_settled(last: float, iterations: int) -> None:
    """NotConverged where that share of an image's probability went elsewhere in the last round."""
    if last > SETTLED:
        raise NotConverged(f"round {iterations} still moved {last:.1%} of the assignments")
