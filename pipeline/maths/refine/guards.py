"""Guards around refinement steps: what a step did to the labels, and whether anything speaks against it.

A step of the unlabelled images may collapse: a prior that is not true, classes that are absent, neighbours of another
class. None of the signs below needs a label; their limits were chosen on training folders (bench/methods.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import Evidence, NotConverged, histogram
from .neighbours import nearest

LOOKED_AT = 4096  # images whose neighbours are compared; more cost memory and would say the same
NEIGHBOURS = 5
RESAMPLES = 200
NOISE = 0.05  # quantile of the resampled gain that must be above 0
ENOUGH_CLASSES = 0.65  # share of classes in effect; the lowest under which no mix of the train folders lost on average


@dataclass(frozen=True)
class Outcome:
    """One step: class counts (C,) before and after, labels it changed, and why it was not kept ('' for kept)."""

    step: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    changed: int
    refused: str = ""


def guarded(name: str, run: Callable[[], Tensor], probs_NC: Tensor, evidence: Evidence) -> tuple[Tensor, Outcome]:
    """The result (N, C) of a step `run` on `probs_NC`, or these again with the reason in the outcome."""
    refined_NC, outcome = unguarded(name, run, probs_NC, evidence)
    against = outcome.changed and (
        few_classes(probs_NC) or collapse(probs_NC, refined_NC, evidence) or no_gain(probs_NC, refined_NC, evidence)
    )
    return (probs_NC, replace(outcome, refused=against)) if against else (refined_NC, outcome)


def unguarded(name: str, run: Callable[[], Tensor], probs_NC: Tensor, evidence: Evidence) -> tuple[Tensor, Outcome]:
    """The result of a step whatever it did; only where it has none, `probs_NC` again."""
    before = tuple(histogram(probs_NC).tolist())
    try:
        refined_NC = run()
    except NotConverged as error:
        return probs_NC, Outcome(name, before, before, 0, f"not converged: {error}")
    changed = int((refined_NC.argmax(dim=1) != probs_NC.argmax(dim=1)).sum())
    return refined_NC, Outcome(name, before, tuple(histogram(refined_NC).tolist()), changed)


def few_classes(probs_NC: Tensor) -> str:
    """These methods spread images over all classes: do the labels tell of too few? exp(entropy) counts them."""
    share_C = histogram(probs_NC).double() / len(probs_NC)
    effective = float(torch.special.entr(share_C).sum().exp())
    if effective >= ENOUGH_CLASSES * probs_NC.shape[1]:
        return ""
    return f"the labels are of {effective:.1f} classes in effect, of {probs_NC.shape[1]}"


def collapse(probs_NC: Tensor, refined_NC: Tensor, evidence: Evidence) -> str:
    """Classes that grew to twice what both the members' agreement and an even mix give, or shrank to half of both."""
    agreed_C, even = agreement(probs_NC, evidence), 1 / probs_NC.shape[1]
    share_C = histogram(refined_NC) / len(refined_NC)
    said = []
    for label, (share, agreed) in enumerate(zip(share_C.tolist(), agreed_C.tolist(), strict=True)):
        if share > 2 * max(agreed, even) or share < min(agreed, even) / 2:
            name = evidence.class_names[label] if evidence.class_names else f"class {label}"
            said.append(f"{name} from {agreed:.1%} to {share:.1%}")
    return f"against what the members agree on, {', '.join(said)}" if said else ""


def agreement(probs_NC: Tensor, evidence: Evidence) -> Tensor:
    """Class shares (C,) of the images that all members label alike; of all images where there are none."""
    label_MN = torch.stack([member_NC.argmax(dim=1) for member_NC in evidence.member_probs or (probs_NC,)])
    agreed_N = (label_MN == label_MN[0]).all(dim=0)
    labels = label_MN[0][agreed_N] if agreed_N.any() else probs_NC.argmax(dim=1)
    return torch.bincount(labels, minlength=probs_NC.shape[1]) / len(labels)


def no_gain(probs_NC: Tensor, refined_NC: Tensor, evidence: Evidence) -> str:
    """Do the labels of nearest neighbours agree better than before, by more than the noise of drawing these images?

    Agreement is taken beyond chance (Cohen's kappa with the labels' own mix): labels that all become one do not gain,
    and labels of one cluster that are split lose. The noise is that of a paired bootstrap over images. Every member's
    features must say so: labels that follow one member's clusters may leave what another one knew.
    """
    chosen_Q = spread(evidence.image_features_ND, LOOKED_AT)
    before_Q, after_Q = probs_NC[chosen_Q].argmax(dim=1), refined_NC[chosen_Q].argmax(dim=1)
    if len(chosen_Q) < 2:
        return "one image has no neighbours to compare with"
    widths = evidence.widths or (evidence.image_features_ND.shape[1],)
    for features_QD in evidence.image_features_ND[chosen_Q].split(widths, dim=1):
        _, near_QK = nearest(features_QD, features_QD, NEIGHBOURS, itself=True)
        gain_B = kappa_gains(before_Q, after_Q, near_QK)
        if (least := float(gain_B.quantile(NOISE))) <= 0:
            which = " in the features of one of the members" if len(widths) > 1 else ""
            return (
                f"labels of similar images{which} agree no better ({float(gain_B.mean()):+.3f}, but {least:+.3f} in "
                f"the worst {NOISE:.0%} of {RESAMPLES:,} samples of these images, where it must be above 0)"
            )
    return ""


def spread(features_ND: Tensor, most: int) -> Tensor:
    """Row numbers of at most `most` images, evenly spaced along the first feature: in whatever order images come."""
    order_N = features_ND[:, 0].float().argsort(stable=True)
    if len(order_N) <= most:
        return order_N
    return order_N[torch.linspace(0, len(order_N) - 1, most, device=order_N.device).round().long()]


def kappa_gains(before_Q: Tensor, after_Q: Tensor, near_QK: Tensor) -> Tensor:
    """Gain of the neighbours' kappa in each of RESAMPLES bootstraps over images, (B,); seeded."""
    draw = torch.Generator().manual_seed(0)
    n, classes = len(before_Q), int(torch.stack([before_Q, after_Q]).max()) + 1
    drawn_BQ = torch.randint(n, (RESAMPLES, n), generator=draw).to(before_Q.device)
    weight_BQ = torch.zeros(RESAMPLES, n, device=before_Q.device)
    weight_BQ.scatter_add_(1, drawn_BQ, torch.full_like(weight_BQ, 1 / n))

    def kappa(label_Q: Tensor) -> Tensor:
        alike_Q = (label_Q[:, None] == label_Q[near_QK]).float().mean(dim=1)
        chance_B = ((weight_BQ @ torch.nn.functional.one_hot(label_Q, classes).float()) ** 2).sum(dim=1)
        return (weight_BQ @ alike_Q - chance_B) / (1 - chance_B).clamp_min(1e-6)

    return kappa(after_Q) - kappa(before_Q)
