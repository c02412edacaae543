"""The chain of steps that measurements on the training folders found best, under one name and a version."""

from typing import Literal

from torch import Tensor

from . import STEPS, Evidence, step

VERSIONS = {1: [("discriminant", {"ridge": 4.0, "mix": "auto", "unbias": True, "settle": 0.005, "iterations": 200})]}


@step(uses="test_set", finds_mix=True)
def recommended(probs_NC: Tensor, evidence: Evidence, version: Literal[1] = max(VERSIONS)) -> Tensor:
    """The steps of `VERSIONS[version]`, one after the other; (N, C) -> (N, C).

    1: `discriminant` (after arXiv 2402.04087) with the class mix estimated where labels are uneven, the text freed of
    class bias and a strong ridge. Chosen by bench/guards.py. O(N D min(N, D)) once, then O(N C D) a round.
    """
    for name, arguments in VERSIONS[version]:
        probs_NC = STEPS[name](probs_NC, evidence, **arguments)
    return probs_NC
