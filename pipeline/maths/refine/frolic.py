"""Frolic: a linear discriminant around the texts, fused with the zero-shot prediction, then freed of class bias."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..zeroshot import TINY
from . import Evidence, NotConverged, step, unit_rows
from .prior import chunks

Count = Annotated[int, Field(ge=1)]
Small = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@step(uses="test_set")
def frolic(probs_NC: Tensor, evidence: Evidence, tolerance: Small = 0.01, iterations: Count = 100) -> Tensor:
    """Frolic (Zhu et al. 2024, arXiv 2410.19294); (N, C) -> (N, C).

    1. Images of a class are taken as Gaussian around its text feature t_k, with one covariance for all that follows
       from the images' second moment: sigma = mean f f^T - mean t t^T. Its discriminant is
       w_k f + b_k with w_k = sigma^-1 t_k and b_k = -t_k sigma^-1 t_k / 2.
    2. It is divided by the temperature that gives it the zero-shot prediction's mean confidence, and added to log p.
    3. Class bias: with S_jk = the mean probability of class j over the images predicted as k, the principal
       eigenvector beta of S is the mix that the model believes in; log beta is taken off, and predictions and beta
       are repeated until beta changes by at most `tolerance` (summed). A class that no image is predicted as has the
       mean over all images as its column.

    O(N D^2 + D^3) for the discriminant, O(N C) an iteration.
    """
    log_NC = unit_rows(probs_NC).log()
    second_NC = discriminant(evidence.image_features_ND, evidence.text_features_CD.float())
    fused_NC = (log_NC + second_NC / confidence_temperature(second_NC, log_NC)).double()
    return (fused_NC - class_bias(fused_NC, tolerance, iterations)).softmax(dim=1).float()


def discriminant(features_ND: Tensor, texts_CD: Tensor) -> Tensor:
    """w_k f + b_k, (N, C). The covariance's negative eigenvalues (texts lie outside the images) are made 0.

    The inverse is the empirical Bayes ridge D ((N - 1) sigma + tr(sigma) I)^-1 (Wang et al. 2024, arXiv 2402.04087),
    which exists for any N and D.
    """
    n, dimensions = features_ND.shape
    texts = texts_CD.double()
    squares = (part.double().T @ part.double() for part in chunks(features_ND))
    covariance_DD = sum(squares, torch.zeros(())) / n - texts.T @ texts / len(texts)
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    values_D = values_D.clamp_min(0)
    inverse_D = dimensions / ((n - 1) * values_D + values_D.sum()).clamp_min(TINY)
    weight_CD = (texts @ vectors_DD * inverse_D) @ vectors_DD.T
    offset_C = (weight_CD * texts).sum(dim=1) / 2
    return torch.cat([(part.double() @ weight_CD.T - offset_C).float() for part in chunks(features_ND)])


def confidence_temperature(logits_NC: Tensor, reference_NC: Tensor) -> float:
    """The temperature at which the mean largest probability of `logits_NC` is that of `reference_NC`; bisection."""
    goal = float(reference_NC.softmax(dim=1).amax(dim=1).mean())
    low, high = -20.0, 20.0  # of its logarithm; confidence falls with it
    for _ in range(60):
        middle = (low + high) / 2
        confidence = float((logits_NC / math.exp(middle)).softmax(dim=1).amax(dim=1).mean())
        low, high = (middle, high) if confidence > goal else (low, middle)
    return math.exp((low + high) / 2)


def class_bias(logits_NC: Tensor, tolerance: float, iterations: int) -> Tensor:
    """log beta (C,), in float64 as a class may hardly mix with others; NotConverged if it has not settled."""
    classes = logits_NC.shape[1]
    probs_NC = logits_NC.softmax(dim=1)
    beta_C = logits_NC.new_full((classes,), 1 / classes)
    for _ in range(iterations):
        label_N = (logits_NC - beta_C.log()).argmax(dim=1)
        member_NC = torch.nn.functional.one_hot(label_N, classes).double()
        count_C = member_NC.sum(dim=0)
        mean_CC = probs_NC.T @ member_NC / count_C.clamp_min(1)
        mean_CC = torch.where(count_C > 0, mean_CC, probs_NC.mean(dim=0)[:, None])
        before_C, beta_C = beta_C, principal_eigenvector(mean_CC)
        if (beta_C - before_C).abs().sum() <= tolerance:
            return beta_C.log()
    raise NotConverged(f"the class bias has not settled after {iterations} rounds")


def principal_eigenvector(mean_CC: Tensor) -> Tensor:
    """The positive vector of sum 1 with S beta = beta; the columns of S (C, C) sum to 1, all its entries are positive.

    Solved directly: the power iteration would be slow where the classes hardly mix. NotConverged where they never do.
    """
    classes = len(mean_CC)
    system = mean_CC - torch.eye(classes, dtype=torch.float64, device=mean_CC.device)
    system[-1] = 1.0  # S - I has rank C - 1: one of its rows gives way to the sum
    right_C = torch.zeros(classes, dtype=torch.float64, device=mean_CC.device)
    right_C[-1] = 1.0
    try:
        beta_C = torch.linalg.solve(system, right_C).clamp_min(TINY)
    except torch.linalg.LinAlgError:
        raise NotConverged("some classes never mix with others, so no single class bias follows") from None
    return beta_C / beta_C.sum()
