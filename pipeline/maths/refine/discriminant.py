"""Gaussian discriminant around the unlabelled images, with the text's predictions as its start and anchor."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..zeroshot import TINY
from . import Evidence, step, unit_rows
from .mixture import SETTLED, Count, Weight, moved, settled
from .prior import chunks, tilted_mean

Ridge = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Settle = Annotated[float, Field(gt=0, le=SETTLED)]
ROUNDS = 3  # of the inner fixed points, which begin where they ended a round before


@step(uses="test_set", finds_mix=True)
def discriminant(
    probs_NC: Tensor,
    evidence: Evidence,
    text_weight: Weight = 1.0,
    ridge: Ridge = 1.0,
    iterations: Count = 50,
    mix: Weight = 0.0,
    unbias: bool = False,
    settle: Settle = SETTLED,
) -> Tensor:
    """Classes as Gaussians with one full covariance, fitted by EM to unlabelled images; (N, C) -> (N, C).

    The classifier is that of Wang et al. 2024 (arXiv 2402.04087), which fits it to labelled images: w_k f + b_k with
    w_k = sigma^-1 mu_k and b_k = -mu_k sigma^-1 mu_k / 2. Here images count by z, with z = the given probabilities p at
    first and then softmax(text_weight log p + w_k f + b_k), so that the text stays an anchor, as in TransCLIP-ZS
    (Zanella et al. 2024, arXiv 2406.01837). sigma = the mean of (f - mu_k)(f - mu_k)' over images, plus `ridge` times
    its mean variance on the diagonal. Unlike `transclip` it sees correlations of features and no neighbours. A class
    without images keeps its mean. With a witness w_k f + b_k is the mean of two, fitted in the members' space and in
    the witness's to the same z (in the spirit of arXiv 2506.13723).

    So far all classes are taken as equally likely. `mix` adds that many times log pi_k, where pi is the class mix that
    the Gaussians alone say of the images. `unbias` adds class biases to log p that make the text's mean prediction that
    of z: a text that likes one class too well is no longer held for many images of it.

    It ends when a round moves at most `settle` of z, or is NotConverged if `iterations` leave it moving.
    O(N D min(N, D)) once, then O(N C D) a round.
    """
    text_NC = unit_rows(probs_NC)
    spaces = [Gaussians(features_ND, text_NC.shape[1]) for features_ND in evidence.spaces]
    bias_C = share_C = torch.full((text_NC.shape[1],), 1 / text_NC.shape[1], dtype=torch.float64, device=text_NC.device)
    z_NC = text_NC
    for _ in range(iterations):
        before_NC = z_NC
        image_NC = sum((space.logits(z_NC, ridge) for space in spaces), torch.zeros(())) / len(spaces)
        logits_NC = text_weight * text_NC.log() + image_NC
        if unbias:
            bias_C = matching_bias(text_NC, z_NC.mean(dim=0, dtype=torch.float64), bias_C)
            logits_NC += bias_C.log().float()
        if mix:
            share_C = likely_mix(image_NC.softmax(dim=1), share_C)
            logits_NC += mix * share_C.log().float()
        z_NC = logits_NC.softmax(dim=1)
        if moved(z_NC, before_NC) <= settle:
            return z_NC
    return settled(z_NC, before_NC, iterations)


class Gaussians:
    """The classes in one feature space: a mean each, and one covariance."""

    def __init__(self, features_ND: Tensor, classes: int):
        self.images_NR, self.variance_R = principal(features_ND)
        self.dimensions = features_ND.shape[1]
        self.mean_CR = self.images_NR.new_zeros(classes, self.images_NR.shape[1])

    def logits(self, z_NC: Tensor, ridge: float) -> Tensor:
        """w_k f + b_k, (N, C), fitted to images that count for the classes by z."""
        size_C1 = z_NC.sum(dim=0)[:, None]
        found_CR = z_NC.T @ self.images_NR / size_C1.clamp_min(1e-6)
        self.mean_CR = torch.where(size_C1 > 1e-6, found_CR, self.mean_CR)
        share_C1 = size_C1.double() / len(z_NC)
        weight_CR = shrunk_solve(self.variance_R, self.mean_CR.double(), share_C1, ridge, self.dimensions)
        return self.images_NR @ weight_CR.T - (weight_CR * self.mean_CR).sum(dim=1) / 2


def principal(features_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Centred images (N, R) in the axes of their covariance that have any variance, and these variances (R,)."""
    centred_ND = features_ND.float() - features_ND.float().mean(dim=0)  # changes no discriminant
    n, dimensions = centred_ND.shape
    if n < dimensions:  # the products of images have the same values, and there are fewer
        values_R, vectors_NR = torch.linalg.eigh((centred_ND @ centred_ND.T).double())
        kept_R = values_R > 1e-9 * values_R.max()
        return (vectors_NR * values_R.clamp_min(0).sqrt())[:, kept_R].float(), values_R[kept_R] / n
    values_R, vectors_DR = torch.linalg.eigh(sum((part.T @ part).double() for part in chunks(centred_ND)))
    kept_R = values_R > 1e-9 * values_R.max()
    return centred_ND @ vectors_DR[:, kept_R].float(), values_R[kept_R] / n


def shrunk_solve(variance_R: Tensor, mean_CR: Tensor, share_C1: Tensor, ridge: float, dimensions: int) -> Tensor:
    """sigma^-1 mu_k as float32 (C, R), in the axes of `principal`; all features equal give 0.

    There sigma = diag(v) - sum_k share_k mu_k mu_k' plus the ridge, so its inverse is that of a diagonal and a
    correction of rank C (Woodbury): O(R C^2 + C^3).
    """
    root_CR = mean_CR * share_C1.sqrt()
    shrinkage = ridge * ((variance_R.sum() - (root_CR**2).sum()) / dimensions).clamp_min(1e-12)
    diagonal_R = variance_R + shrinkage
    inner_CC = torch.eye(len(root_CR), dtype=root_CR.dtype, device=root_CR.device) - root_CR / diagonal_R @ root_CR.T
    first_CR = mean_CR / diagonal_R
    correction_CC = torch.linalg.solve(inner_CC, root_CR @ first_CR.T).T
    return (first_CR + correction_CC @ (root_CR / diagonal_R)).float()


def matching_bias(text_NC: Tensor, target_C: Tensor, bias_C: Tensor) -> Tensor:
    """exp of class biases (C,) nearer to those that make the mean of `text_NC` the target: rounds of Sinkhorn."""
    for _ in range(ROUNDS):
        bias_C = bias_C * target_C.clamp_min(1e-9) / tilted_mean(text_NC, bias_C).clamp_min(TINY)
        bias_C = (bias_C / bias_C.max()).clamp_min(TINY)
    return bias_C


def likely_mix(likelihood_NC: Tensor, share_C: Tensor) -> Tensor:
    """Class shares (C,) of higher likelihood, rows being the likelihoods of classes up to a factor: rounds of EM."""
    for _ in range(ROUNDS):
        share_C = tilted_mean(likelihood_NC, share_C).clamp_min(1e-6)
    return share_C
