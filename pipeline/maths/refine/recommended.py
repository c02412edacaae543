"""The chain that measurements on the training folders found best, under one name and a version."""

from typing import Any, Literal

import torch
from torch import Tensor

from . import Evidence, step
from .discriminant import discriminant

VERSIONS: dict[int, dict[str, Any]] = {1: {"ridge": 2.0, "unbias": True, "settle": 0.005, "iterations": 200}}


@step(uses="test_set", finds_mix=True)
def recommended(probs_NC: Tensor, evidence: Evidence, version: Literal[1] = 1) -> Tensor:
    """The labels that two fits of `discriminant` (after arXiv 2402.04087) agree on; (N, C) -> (N, C).

    One takes all classes as equally likely, the other estimates the class mix where the given labels are uneven. An
    image whose label depends on which of the two is true keeps its given row. Both free the text of class bias.
    A version keeps its settings for good; bench/guards.py chose them. O(N D min(N, D)), then O(N C D) a round.
    """
    settings = VERSIONS[version]
    even_NC = discriminant(probs_NC, evidence, **settings)
    found_NC = discriminant(probs_NC, evidence, mix="auto", **settings)
    agreed_N1 = (even_NC.argmax(dim=1) == found_NC.argmax(dim=1))[:, None]
    return torch.where(agreed_N1, found_NC, probs_NC.float())
