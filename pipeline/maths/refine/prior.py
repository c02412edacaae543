"""Prior matching: the mean of the predictions is made a given class mix."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...core.errors import Mismatch, UserError
from ..zeroshot import TINY
from . import Evidence, NotConverged, step, unit_rows

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Softness = Annotated[float, Field(ge=0, le=1)]
Tolerance = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
CHUNK_VALUES = 2**24
TRANSPORT_LIMIT = 2_000_000  # values of the cost matrix: seconds of exact transport, not hours


@step(uses="test_set", check=lambda class_names, to="uniform", **_: shares(to, class_names))
def prior(
    probs_NC: Tensor,
    evidence: Evidence,
    to: Literal["uniform"] | list[Share] | dict[str, Share] = "uniform",
    gamma: Softness = 0.0,
    method: Literal["sinkhorn", "transport"] = "sinkhorn",
    tolerance: Tolerance = 1e-3,
    iterations: Count = 1000,
) -> Tensor:
    """The probabilities nearest to the given ones whose mean is the mix `to`; (N, C) -> (N, C).

    `to` is uniform or a share per class (any scale). It is softened by `gamma`: the target is, up to a factor,
    to^(1 - gamma) q^gamma with q the mean of the given probabilities, so that 1 asks for no change.

    sinkhorn: class biases b with mean softmax(log p + b) = target, by b += log target - log mean softmax(log p + b)
    (Cuturi 2013, arXiv 1306.0895, with the rows' step folded into the softmax), until mean and target differ by at
    most `tolerance` (summed). O(N C) an iteration, in row chunks.
    transport: labels of the exact optimal transport from images to the target with cost -log p (OTTER, arXiv
    2404.08461), by POT; its plan as rows of probabilities. About O(N^2 C): UserError above TRANSPORT_LIMIT values.
    """
    target_C = mix(probs_NC, evidence, to, gamma)
    if method == "transport":
        return transport(probs_NC, target_C)
    return biased(probs_NC, sinkhorn(probs_NC, target_C, tolerance, iterations))


def shares(to: Any, class_names: Sequence[str]) -> list[float]:
    """One for each class, in their order and any scale; UserError where they do not fit the classes."""
    if isinstance(to, dict):
        wrong = set(to) ^ set(class_names)
        if wrong:
            raise Mismatch(f"prior: to: the shares must be of the classes; wrong or missing: {sorted(wrong)}")
        to = [to[name] for name in class_names]
    found = [1.0] * len(class_names) if to == "uniform" else to
    if len(found) != len(class_names) or sum(found) <= 0:
        raise Mismatch(f"prior: to: {len(found)} shares of {len(class_names)} classes; give each class one, not all 0")
    return found


def mix(probs_NC: Tensor, evidence: Evidence, to: Any, gamma: float) -> Tensor:
    """The target shares (C,); UserError for shares that do not fit the classes."""
    class_names = evidence.class_names or [str(number) for number in range(probs_NC.shape[1])]
    target_C = torch.tensor(shares(to, class_names), dtype=torch.float32, device=probs_NC.device)
    if gamma:
        target_C = (target_C / target_C.sum()) ** (1 - gamma) * mean_of(probs_NC) ** gamma
    return target_C / target_C.sum()


def chunks(probs_NC: Tensor) -> tuple[Tensor, ...]:
    """Row slices of a bounded number of values, so that no second (N, C) is made."""
    return probs_NC.split(max(1, CHUNK_VALUES // probs_NC.shape[1]))


def mean_of(probs_NC: Tensor) -> Tensor:
    """Mean of the rows made to sum to 1, (C,)."""
    sums = (unit_rows(part).sum(dim=0, dtype=torch.float64) for part in chunks(probs_NC))
    return sum(sums, torch.zeros(())).float() / len(probs_NC)


def sinkhorn(probs_NC: Tensor, target_C: Tensor, tolerance: float, iterations: int) -> Tensor:
    """Biases b (C,) with |mean softmax(log p + b) - target| summed at most `tolerance`; NotConverged else.

    A class whose target is 0 has the bias -inf.
    """
    bias_C = torch.zeros_like(target_C, dtype=torch.float64)
    for _ in range(iterations):
        mean_C = tilted_mean(probs_NC, bias_C.exp())
        if (mean_C - target_C).abs().sum() <= tolerance:
            return bias_C
        bias_C = torch.where(target_C > 0, bias_C + target_C.double().log() - mean_C.clamp_min(TINY).log(), -math.inf)
        bias_C = bias_C - bias_C.max()
    raise NotConverged(f"the mean is {(mean_C - target_C).abs().sum():.2g} from the prior after {iterations} rounds")


def tilted_mean(probs_NC: Tensor, weight_C: Tensor) -> Tensor:
    """Mean of softmax(log p + b), (C,) float64, with weight exp(b): two products with a matrix that is not copied."""
    total_C = torch.zeros_like(weight_C)
    for part in chunks(probs_NC):
        part_BC = part.float().clamp_min(TINY)
        total_C += part_BC.T @ (1 / (part_BC @ weight_C.float()))
    return weight_C * total_C / len(probs_NC)


def biased(probs_NC: Tensor, bias_C: Tensor) -> Tensor:
    """softmax(log p + b) in row chunks: one new (N, C)."""
    result_NC = torch.empty(probs_NC.shape, dtype=torch.float32, device=probs_NC.device)
    for part, place in zip(chunks(probs_NC), chunks(result_NC), strict=True):
        torch.mul(part.float().clamp_min(TINY), bias_C.exp().float(), out=place)
        place /= place.sum(dim=1, keepdim=True)
    return result_NC


def transport(probs_NC: Tensor, target_C: Tensor) -> Tensor:
    """Rows of the optimal transport plan from N equal masses to `target_C`, cost -log p; UserError if too large."""
    import ot

    n, classes = probs_NC.shape
    if n * classes > TRANSPORT_LIMIT:
        raise UserError(
            f"prior: method: transport of {n} x {classes} probabilities is too long (limit {TRANSPORT_LIMIT} values). "
            "Write 'method: sinkhorn'"
        )
    masses_N = torch.full((n,), 1 / n, dtype=torch.float64)
    shares_C = target_C.double().cpu() / target_C.double().sum().cpu()
    cost_NC = -unit_rows(probs_NC).double().log().cpu()
    plan_NC, said = ot.emd(masses_N.numpy(), shares_C.numpy(), cost_NC.numpy(), numItermax=10_000_000, log=True)
    if said["warning"]:
        raise NotConverged(said["warning"])
    return unit_rows(torch.from_numpy(plan_NC).to(probs_NC.device) * n)
