"""Gaussian discriminant around the unlabelled images, with the text's predictions as its start and anchor."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..zeroshot import TINY
from . import Evidence, step, unit_rows
from .mixture import SETTLED, Count, Weight, check_settled
from .prior import CHUNK_VALUES, chunks, tilted_mean

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
    O(N D min(N, D)) once, then O(N C D) a round. Sums of the features are kept, and a part is read at a time: they may
    lie in a file larger than memory. Of (N, C) there is z, and with `mix` one more.
    """
    fit = Fit(probs_NC, evidence.spaces)
    bias_C = share_C = probs_NC.new_full((probs_NC.shape[1],), 1 / probs_NC.shape[1], dtype=torch.float64)
    for _ in range(iterations):
        fit.planes(ridge)
        prior_C = torch.zeros_like(bias_C)
        if unbias:
            bias_C = matching_bias(probs_NC, fit.size_C / len(probs_NC), bias_C)
            prior_C = prior_C + bias_C.log()
        if mix:
            share_C = likely_mix(fit.likelihoods(), share_C)
            prior_C = prior_C + mix * share_C.log()
        last = fit.assign(text_weight, prior_C.float())
        if last <= settle:
            return fit.z_NC
    check_settled(last, iterations)
    return fit.z_NC


class Fit:
    """How images count for the classes, z (N, C), and the Gaussians fitted to that in each space."""

    def __init__(self, probs_NC: Tensor, spaces: list[Tensor]):
        self.probs_NC = probs_NC
        self.spaces = [Gaussians(features_ND, probs_NC.shape[1]) for features_ND in spaces]
        widest = max(probs_NC.shape[1], *(space.features_ND.shape[1] for space in self.spaces))
        rows = max(1, CHUNK_VALUES // widest)
        self.parts = [slice(start, start + rows) for start in range(0, len(probs_NC), rows)]
        self.z_NC = torch.empty(probs_NC.shape, dtype=torch.float32, device=probs_NC.device)
        self.size_C = probs_NC.new_zeros(probs_NC.shape[1], dtype=torch.float64)
        for part in self.parts:
            self._count(part, unit_rows(probs_NC[part]), [space.centred(part) for space in self.spaces])

    def _count(self, part: slice, z_BC: Tensor, images: list[Tensor]) -> None:
        self.z_NC[part] = z_BC
        self.size_C += z_BC.sum(dim=0, dtype=torch.float64)
        for space, images_BD in zip(self.spaces, images, strict=True):
            space.sum_CD += (z_BC.T @ images_BD).double()

    def planes(self, ridge: float) -> None:
        """Fit the Gaussians to what was counted."""
        for space in self.spaces:
            space.fit(self.size_C, len(self.probs_NC), ridge)

    def _says(self, images: list[Tensor]) -> Tensor:
        """w_k f + b_k, (B, C): the mean of the spaces."""
        logits = (space.logits(images_BD) for space, images_BD in zip(self.spaces, images, strict=True))
        return sum(logits, torch.zeros(())) / len(self.spaces)

    def likelihoods(self) -> Tensor:
        """What the Gaussians alone say of the images, rows that sum to 1."""
        found_NC = torch.empty_like(self.z_NC)
        for part in self.parts:
            found_NC[part] = self._says([space.centred(part) for space in self.spaces]).softmax(dim=1)
        return found_NC

    def assign(self, text_weight: float, prior_C: Tensor) -> float:
        """z by the Gaussians, the text and the classes' priors, counted; the mean share of an image that it moved."""
        self.size_C.zero_()
        moved_by = 0.0
        for part in self.parts:
            images = [space.centred(part) for space in self.spaces]
            logits_BC = text_weight * unit_rows(self.probs_NC[part]).log() + self._says(images) + prior_C
            z_BC = logits_BC.softmax(dim=1)
            moved_by += float((z_BC - self.z_NC[part]).abs().sum(dtype=torch.float64))
            self._count(part, z_BC, images)
        return moved_by / 2 / len(self.probs_NC)


class Gaussians:
    """The classes in one feature space: a mean each, and one covariance."""

    def __init__(self, features_ND: Tensor, classes: int):
        self.features_ND = features_ND
        self.centre_D, self.axes_DR, self.variance_R = principal(features_ND)
        self.mean_CR = self.axes_DR.new_zeros(classes, self.axes_DR.shape[1])
        self.sum_CD = torch.zeros(classes, features_ND.shape[1], dtype=torch.float64, device=features_ND.device)

    def centred(self, part: slice) -> Tensor:
        """Some images, (B, D)."""
        return self.features_ND[part].float() - self.centre_D

    def fit(self, size_C: Tensor, images: int, ridge: float) -> None:
        """The means and planes of the sums (C, D) of images that count `size_C` for the classes; new sums begin."""
        size_C1 = size_C[:, None]
        found_CR = self.sum_CD @ self.axes_DR / size_C1.clamp_min(1e-6)
        self.mean_CR = torch.where(size_C1 > 1e-6, found_CR, self.mean_CR)
        weight_CR = shrunk_solve(self.variance_R, self.mean_CR, size_C1 / images, ridge, self.features_ND.shape[1])
        self.weight_DC = (self.axes_DR @ weight_CR.T).float()
        self.offset_C = ((weight_CR * self.mean_CR).sum(dim=1) / 2).float()
        self.sum_CD.zero_()

    def logits(self, images_BD: Tensor) -> Tensor:
        """w_k f + b_k, (B, C)."""
        return images_BD @ self.weight_DC - self.offset_C


def principal(features_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean image (D,), the axes (D, R) of the images' covariance that have any variance, and these variances (R,).

    Float64 but for the mean. Centring changes no discriminant.
    """
    n, dimensions = features_ND.shape
    total_D = torch.zeros(dimensions, dtype=torch.float64, device=features_ND.device)
    for part in chunks(features_ND):
        total_D += part.sum(dim=0, dtype=torch.float64)
    centre_D = (total_D / n).float()
    if n < dimensions:  # the products of images have the same values, and there are fewer
        centred_ND = features_ND.float() - centre_D
        values_R, vectors_NR = torch.linalg.eigh((centred_ND @ centred_ND.T).double())
        kept_R = values_R > 1e-9 * values_R.max()
        axes_DR = centred_ND.double().T @ vectors_NR[:, kept_R] / values_R[kept_R].sqrt()
        return centre_D, axes_DR, values_R[kept_R] / n
    products_DD = torch.zeros(dimensions, dimensions, dtype=torch.float64, device=features_ND.device)
    for part in chunks(features_ND):
        centred_BD = part.float() - centre_D
        products_DD += (centred_BD.T @ centred_BD).double()
    values_R, vectors_DR = torch.linalg.eigh(products_DD)
    kept_R = values_R > 1e-9 * values_R.max()
    return centre_D, vectors_DR[:, kept_R], values_R[kept_R] / n


def shrunk_solve(variance_R: Tensor, mean_CR: Tensor, share_C1: Tensor, ridge: float, dimensions: int) -> Tensor:
    """sigma^-1 mu_k (C, R), in the axes of `principal`; all features equal give 0.

    There sigma = diag(v) - sum_k share_k mu_k mu_k' plus the ridge, so its inverse is that of a diagonal and a
    correction of rank C (Woodbury): O(R C^2 + C^3).
    """
    root_CR = mean_CR * share_C1.sqrt()
    shrinkage = ridge * ((variance_R.sum() - (root_CR**2).sum()) / dimensions).clamp_min(1e-12)
    diagonal_R = variance_R + shrinkage
    inner_CC = torch.eye(len(root_CR), dtype=root_CR.dtype, device=root_CR.device) - root_CR / diagonal_R @ root_CR.T
    first_CR = mean_CR / diagonal_R
    correction_CC = torch.linalg.solve(inner_CC, root_CR @ first_CR.T).T
    return first_CR + correction_CC @ (root_CR / diagonal_R)


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
