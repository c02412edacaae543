"""The step that measurements on the training folders found best, under one name and a version."""

from typing import Any, Literal

from torch import Tensor

from . import Evidence, step
from .discriminant import discriminant

VERSIONS: dict[int, dict[str, Any]] = {1: {"unbias": True, "settle": 0.005, "iterations": 200}}
RIDGE = {1: (2.0, 4.0)}  # without and with a witness, which has more to be smoothed


@step(uses="test_set", finds_mix=True)
def recommended(probs_NC: Tensor, evidence: Evidence, version: Literal[1] = 1) -> Tensor:
    """`discriminant` (after arXiv 2402.04087) with the settings that bench/guards.py chose; (N, C) -> (N, C).

    A version keeps them for good. O(N D min(N, D)), then O(N C D) a round.
    """
    alone, with_witness = RIDGE[version]
    ridge = alone if evidence.witness_ND is None else with_witness
    return discriminant(probs_NC, evidence, ridge=ridge, **VERSIONS[version])
