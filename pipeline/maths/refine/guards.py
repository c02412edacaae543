"""Guards around refinement steps: which changes of label does anything speak for, and is the step kept at all?

A step of the unlabelled images may collapse: a prior that is not true, classes that are absent, neighbours of another
class. Of all signs tried that need no label, one tells helpful from harmful changes best: whether the images most
similar to the changed ones side with the new label or with the old one. Wrong changes come as wrong as a whole: a
cluster is split, and part of it goes from its class to another. So all changes from one class to another are judged
together. bench/guards.py measures this, and chose the limits, on training folders.

Shape suffixes: Q images whose label a step changed, R images that neighbours are looked for among.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import STEPS, Evidence, NotConverged, classes_in_effect, histogram
from .neighbours import nearest

REFERENCE = 16_384  # images that neighbours are looked for among; more cost time and would say the same
LOOKED_AT = 4096  # images whose agreement is compared before and after
AT_A_TIME = 2**17  # images whose features are taken together
NEIGHBOURS = 10
# support from which changes are kept, where nothing else speaks for the step; and changes' worth that the mean support
# of all, if lower, counts in that of the changes between two classes, as few of one kind may have it by chance.
# Neighbours in the members' own spaces err with the labels, and of a step that finds the mix nothing else is asked;
# of one that finds what the labels before it say, nearly all classes and evenly, no more than of others
ALONE, FINDS_MIX_ALONE, WITH_A_WITNESS = (0.3, 10), (0.45, 10), (0.3, 3)
UNEVEN, EVEN = 0.75, 0.85  # classes in effect after a step that finds them: share of all
SEVERAL = 0.55  # classes in effect before it
FEW, MANY = 10, 16  # images per class: among few, neighbours reach beyond their class and say little
ENOUGH_CLASSES = 0.65  # classes in effect before any other step: share of all
ROUNDING = 1e-3


@dataclass(frozen=True)
class Outcome:
    """One step: class counts (C,) before and after, labels it changed, and why it was not kept ('' for kept).

    `withheld`: how many changes were not kept though the step was.
    """

    step: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    changed: int
    refused: str = ""
    withheld: int = 0


def guarded(name: str, run: Callable[[], Tensor], probs_NC: Tensor, evidence: Evidence) -> tuple[Tensor, Outcome]:
    """The result (N, C) of a step `run` on `probs_NC` but for changes that similar images speak against.

    Where no change is left, `probs_NC` again with the reason in the outcome. Of a step that `finds_mix` less is asked
    where `trust` says so. Others move whole clusters, whose images then side with each other, so they are also refused
    where labels tell of few classes, classes collapse, or neighbours agree no better.
    """
    refined_NC, outcome = unguarded(name, run, probs_NC, evidence)
    if not outcome.changed:
        return refined_NC, outcome
    if len(probs_NC) < 2:
        return probs_NC, replace(outcome, refused="one image has no neighbours to compare with")
    finds_mix, changes = getattr(STEPS.get(name), "finds_mix", False), (probs_NC, refined_NC, evidence)
    against = "" if finds_mix else few_classes(probs_NC) or collapse(*changes) or no_gain(*changes)
    if against:
        return probs_NC, replace(outcome, refused=against)
    support_Q, changed_N = support(*changes)
    granted = trust(probs_NC, refined_NC) if finds_mix else 0.0
    sides_with, leans = asked(probs_NC, refined_NC, finds_mix, evidence.witness_ND is not None)
    old_Q, new_Q = (part[changed_N].argmax(dim=1) for part in (probs_NC, refined_NC))
    together_Q = together(support_Q, old_Q, new_Q, leans)
    withheld_Q = together_Q < sides_with - (1 + sides_with) * granted - ROUNDING
    if withheld_Q.all():
        against = f"similar images do not side with the new labels (support {float(support_Q.mean()):+.2f})"
        return probs_NC, replace(outcome, refused=against)
    back_N = changed_N.nonzero()[withheld_Q.nonzero()[:, 0], 0]
    kept_NC = refined_NC.index_put((back_N,), probs_NC[back_N].to(refined_NC.dtype))
    after = tuple(histogram(kept_NC).tolist())
    return kept_NC, replace(outcome, after=after, changed=outcome.changed - len(back_N), withheld=len(back_N))


def asked(probs_NC: Tensor, refined_NC: Tensor, finds_mix: bool, witness: bool) -> tuple[float, int]:
    """The support from which changes are kept, and how much few lean on all."""
    if witness or not finds_mix:
        return WITH_A_WITNESS if witness else ALONE
    most, leans = FINDS_MIX_ALONE
    even = evenness(refined_NC) if classes_in_effect(probs_NC) >= UNEVEN else 0.0
    return most - (most - ALONE[0]) * even, leans


def together(support_Q: Tensor, old_Q: Tensor, new_Q: Tensor, leans: int) -> Tensor:
    """The mean support (Q,) of all changes that are from and to the same classes.

    That of few leans on that of all where that is lower: it excuses none.
    """
    _, kind_Q, count_K = torch.stack([old_Q, new_Q], dim=1).unique(dim=0, return_inverse=True, return_counts=True)
    sum_K = torch.zeros_like(count_K, dtype=support_Q.dtype).index_add(0, kind_Q, support_Q)
    lower_K = torch.minimum(sum_K / count_K, support_Q.mean())
    return ((sum_K + leans * lower_K) / (count_K + leans))[kind_Q]


def unguarded(name: str, run: Callable[[], Tensor], probs_NC: Tensor, evidence: Evidence) -> tuple[Tensor, Outcome]:
    """The result of a step whatever it did; only where it has none, `probs_NC` again."""
    before = tuple(histogram(probs_NC).tolist())
    try:
        refined_NC = run()
    except NotConverged as error:
        return probs_NC, Outcome(name, before, before, 0, f"not converged: {error}")
    changed = int((refined_NC.argmax(dim=1) != probs_NC.argmax(dim=1)).sum())
    return refined_NC, Outcome(name, before, tuple(histogram(refined_NC).tolist()), changed)


def trust(probs_NC: Tensor, refined_NC: Tensor) -> float:
    """0 to 1: how much a step that found these classes is believed without its neighbours' word.

    1 for even classes of few images, which wrong steps were hardly seen to end at; 0 for uneven ones, where the labels
    before it tell of few classes, and for many images, where neighbours know better.
    """
    if classes_in_effect(probs_NC) < SEVERAL:
        return 0.0
    few = (MANY - len(refined_NC) / refined_NC.shape[1]) / (MANY - FEW)
    return evenness(refined_NC) * min(1.0, max(0.0, few))


def evenness(refined_NC: Tensor) -> float:
    """0 to 1: whether a step ends at all classes in about equal numbers."""
    return min(1.0, max(0.0, (classes_in_effect(refined_NC) - UNEVEN) / (EVEN - UNEVEN)))


def few_classes(probs_NC: Tensor) -> str:
    """Most steps spread images over all classes: do the labels tell of too few?"""
    share = classes_in_effect(probs_NC)
    if share >= ENOUGH_CLASSES:
        return ""
    return f"the labels are of {share * probs_NC.shape[1]:.1f} classes in effect, of {probs_NC.shape[1]}"


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
    """Do neighbours' labels agree better than before to every judge, beyond chance (Cohen's kappa with their mix)?"""
    chosen_R = spread(evidence.image_features_ND, LOOKED_AT)
    for features_ND in evidence.judges:
        near_RK = others(features_ND[chosen_R], torch.arange(len(chosen_R)), torch.arange(len(chosen_R)))
        before, after = (kappa(part_NC[chosen_R].argmax(dim=1), near_RK) for part_NC in (probs_NC, refined_NC))
        if after <= before:
            return f"labels of similar images agree no better (kappa {before:.3f}, then {after:.3f})"
    return ""


def kappa(label_R: Tensor, near_RK: Tensor) -> float:
    """How often images and their neighbours have one label, beyond what labels drawn from their mix would."""
    chance = float((torch.bincount(label_R) / len(label_R)).square().sum())
    return (float((label_R[:, None] == label_R[near_RK]).float().mean()) - chance) / max(1 - chance, 1e-6)


def support(probs_NC: Tensor, refined_NC: Tensor, evidence: Evidence) -> tuple[Tensor, Tensor]:
    """For each changed label, what share of the image's neighbours have its new label less the share with its old one.

    (Q,) of -1 to 1, and which images these are, (N,). All labels are those after the step. The least of the members
    counts: labels that follow one member's clusters may leave what another one knew. A witness judges alone, as it has
    no part in the labels that are changed.
    """
    old_N, new_N = probs_NC.argmax(dim=1), refined_NC.argmax(dim=1)
    changed_N = old_N != new_N
    reference_R = spread(evidence.image_features_ND, REFERENCE)
    found = []
    for features_ND in evidence.judges:
        label_QK = new_N[others(features_ND, changed_N.nonzero()[:, 0], reference_R)]
        for_Q = (label_QK == new_N[changed_N][:, None]).float().mean(dim=1)
        against_Q = (label_QK == old_N[changed_N][:, None]).float().mean(dim=1)
        found.append(for_Q - against_Q)
    return torch.stack(found).amin(dim=0), changed_N


def others(features_ND: Tensor, asked_Q: Tensor, reference_R: Tensor) -> Tensor:
    """Row numbers (Q, K) of the neighbours of some images among `reference_R`, none being its own."""
    reference_RD = features_ND[reference_R]
    # features of many images may lie in a file: a part of them at a time
    places = [nearest(features_ND[part], reference_RD, NEIGHBOURS + 1)[1] for part in asked_Q.split(AT_A_TIME)]
    place_QK = torch.cat(places)
    row_QK = reference_R[place_QK]
    dropped_QK = row_QK == asked_Q[:, None]
    dropped_QK[:, -1] |= ~dropped_QK.any(dim=1)
    return row_QK[~dropped_QK].view(len(asked_Q), -1)


def spread(features_ND: Tensor, most: int) -> Tensor:
    """Row numbers of at most `most` images, evenly spaced along the first feature: in whatever order images come."""
    order_N = features_ND[:, 0].float().argsort(stable=True)
    if len(order_N) <= most:
        return order_N
    return order_N[torch.linspace(0, len(order_N) - 1, most, device=order_N.device).round().long()]
