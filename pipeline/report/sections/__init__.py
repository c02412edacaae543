"""The sections of a report: each function shows one side of a Result, or None where the Result does not know it."""

import numpy as np

from ...maths import metrics
from .. import flips
from ..page import Section
from ..result import Result
from .features import features
from .labels import classes, confusion, mistakes, pictures, reliability, uncertain
from .making import advice, members, prompts
from .provenance import provenance


def cards(result: Result) -> list[tuple[str, str, str]]:
    """The headline numbers: (number, name, remark)."""
    made = [(f"{len(result.labels):,}", "images", f"{len(result.class_names)} classes")]
    if result.truth is not None:
        accuracy = float(result.right.mean())
        noise = metrics.accuracy_noise(accuracy, len(result.labels))
        made.append((f"{accuracy:.2%}", "accuracy", f"standard error {noise:.2%}"))
        made.append((f"{result.per_class.macro_f1:.2%}", "macro F1", f"mean recall {result.per_class.mean_recall:.2%}"))
    for key in ("public", "private"):
        if key in result.board:
            made.append((result.board[key], f"{key} score", "leaderboard"))
    if result.shares is not None:
        remark = ""
        if result.truth is not None:
            remark = f"calibration error {result.calibration_error:.2%}"
        made.append((f"{result.confidence.mean():.1%}", "mean confidence", remark))
    if len(result.members) > 1:
        agree = (np.stack([m.labels for m in result.members]) == result.members[0].labels).all(axis=0).mean()
        made.append((f"{agree:.1%}", "members agree", f"all {len(result.members)} on one label"))
    if "flipped_previous" in result.board:
        made.append((result.board["flipped_previous"], "labels flipped", "against the previous submission"))
    return made


def every(result: Result) -> list[Section]:
    """All sections that the result knows enough for, in reading order."""
    makers = (classes, confusion, advice, flips.sections, pictures, mistakes, uncertain, members, reliability)
    made = [make(result) for make in (*makers, features, prompts, provenance)]
    return [section for one in made if one for section in (one if isinstance(one, list) else [one])]
