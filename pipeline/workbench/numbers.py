"""The right side of the page: what a `Result` says in numbers, as JSON."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from ..maths import metrics
from ..maths.refine.guards import Outcome
from ..report.result import Change, Result

PAIRS = 40  # pairs of classes that are listed
MANY = 30  # more classes than this have no matrices


def of_change(result: Result, change: Change | None, outcomes: Sequence[Outcome]) -> dict:
    """What is known at once after every edit."""
    return {
        "counts": result.counts.tolist(),
        "baseline": None if change is None else np.bincount(change.before, minlength=len(result.counts)).tolist(),
        "expected": [round(float(count), 1) for count in result.expected],
        "expectation": result.expectation,
        "offPrior": [round(float(off), 1) for off in result.off_prior],
        "flips": None if change is None else _flips(result, change),
        "accuracy": _accuracy(result),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def _flips(result: Result, change: Change) -> dict:
    pairs = change.pairs()
    told = [{"before": a, "now": b, "images": len(rows), **_judged(result, change, rows)} for a, b, rows in pairs]
    return {"count": change.flipped, "seen": change.seen, "pairs": told[:PAIRS], "more": len(told[PAIRS:])}


def _judged(result: Result, change: Change, rows: np.ndarray) -> dict:
    if result.truth is None:
        return {}
    truth = result.truth[rows]
    return {"better": int((change.after[rows] == truth).sum()), "worse": int((change.before[rows] == truth).sum())}


def _accuracy(result: Result) -> dict | None:
    if result.right is None:
        return None
    accuracy = float(result.right.mean())
    return {"value": accuracy, "noise": metrics.accuracy_noise(accuracy, len(result.right))}


def details(result: Result) -> dict:
    """What takes longer, and follows when nothing else is to be done."""
    few = len(result.class_names) <= MANY
    return {
        "members": [
            {
                "member": member.name,
                "dissents": int((member.labels != result.labels).sum()),
                "flips": member.flips,
                **({} if result.truth is None else {"accuracy": float((member.labels == result.truth).mean())}),
            }
            for member in result.members
        ],
        "apart": int((result.dissent > 0).sum()),
        "disagreement": result.disagreement.round(4).tolist() if len(result.members) > 1 else None,
        "twoWay": result.two_way.tolist() if few and len(result.members) > 1 else None,
        "confusion": result.confusion.tolist() if few and result.truth is not None else None,
        "reliability": None if result.right is None else _reliability(result),
        "fragile": None if result.fragile is None else int(result.fragile.sum()),
    }


def _reliability(result: Result) -> dict:
    confidence, right, images = result.calibration
    bins = zip(confidence.tolist(), right.tolist(), images.tolist(), strict=True)
    return {"error": float(result.calibration_error), "bins": [list(one) for one in bins]}
