"""Calibration of guards around refinement: which sign, without labels, tells a step that helps from one that harms?

Thousands of class mixes are drawn from the train folders of two labelled sets (../shared) and from one of them
degraded, with the encoder as it is, weaker by noise, and stronger by a pull of images towards the text of their class.
What is chosen here is then measured by bench/methods.py on the test folders. The demo's rendered scenes are a third
kind of images that takes no part in the choice: `python bench/guards.py demo` measures them.
"""

import contextlib
import functools
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import mixes
import numpy as np
import torch
from labelled import ROOT
from methods import FOLDER, SETS, Images, class_texts, load, some, with_evidence
from scipy.stats import rankdata

from pipeline.chain import classes, ensemble
from pipeline.chain.stage import made
from pipeline.chain.task import CompetitionTask
from pipeline.maths.refine import STEPS, Evidence, classes_in_effect, guards
from pipeline.maths.zeroshot import normalise
from pipeline.recipes import Project

ENCODERS = {  # noise in standard deviations of a feature, pull towards the text of the true class
    "as it is": (0.0, 0.0),
    "a little noise": (1.0, 0.0),
    "weak": (3.0, 0.0),
    "better": (0.0, 0.05),
    "strong": (0.0, 0.12),
    "strong, with noise": (2.0, 0.1),
}
OTHER_STEPS = {
    "discriminant": {},
    "prior": {},
    "prior, gamma 0.5": {"gamma": 0.5},
    "stata": {},
    "transclip": {},
    "propagate": {},
    "frolic": {},
}
DRAWS = 10
AIM = ("three classes", "skewed 10:1", "skewed 30:1", "one dominates", "60 images", "Dirichlet(1)")
BIG = 100  # images of a mix whose single losses count


@dataclass(frozen=True)
class Case:
    """One mix: where it is from, points gained by each way, and the signs seen of the recommended chain."""

    images: str
    mix: str
    number: int
    gain: dict[str, float]
    sign: dict[str, float]


def changed(images: Images, noise: float, pull: float) -> Images:
    """The same images as a weaker or stronger encoder would have them."""
    draw = torch.Generator().manual_seed(0)
    texts_CD = class_texts(images)
    towards_ND = pull * (texts_CD - texts_CD.mean(dim=0))[images.truth_N]
    features = {
        name: normalise(
            part_ND + towards_ND + noise * part_ND.std(dim=0).mean() * torch.randn(part_ND.shape, generator=draw)
        )
        for name, part_ND in images.features.items()
    }
    return replace(images, features=features)


def run(kind: Callable, step: str, arguments: dict, probs_NC: torch.Tensor, evidence: Evidence) -> torch.Tensor:
    name = step.partition(",")[0]
    return kind(name, lambda: STEPS[name](probs_NC, evidence, **arguments), probs_NC, evidence)[0]


def points(found_NC: torch.Tensor, probs_NC: torch.Tensor, truth_N: torch.Tensor) -> float:
    """Points of accuracy gained over the given probabilities."""
    right = (found_NC.argmax(dim=1) == truth_N).float() - (probs_NC.argmax(dim=1) == truth_N).float()
    return 100 * float(right.mean())


def case(where: str, mix: str, probs_NC: torch.Tensor, evidence: Evidence, truth_N: torch.Tensor, others: bool) -> Case:
    """Every way and every sign on one mix."""
    ways = {"recommended": {}} | (OTHER_STEPS if others else {"discriminant": {}})
    found = {
        f"{step}, {kind.__name__}": run(kind, step, arguments, probs_NC, evidence)
        for step, arguments in ways.items()
        for kind in (guards.unguarded, guards.guarded)
    }
    gain = {way: points(found_NC, probs_NC, truth_N) for way, found_NC in found.items()}
    return Case(where, mix, len(truth_N), gain, signs(probs_NC, found["recommended, unguarded"], evidence))


def signs(probs_NC: torch.Tensor, refined_NC: torch.Tensor, evidence: Evidence) -> dict[str, float]:
    """What can be seen of a step without a label."""
    before_N, after_N = probs_NC.argmax(dim=1), refined_NC.argmax(dim=1)
    changed = int((before_N != after_N).sum())
    again = functools.partial(STEPS["discriminant"], probs_NC, evidence, ridge=4.0, unbias=True, iterations=200)
    support = float(guards.support(probs_NC, refined_NC, evidence)[0].mean()) if changed else 0.0
    return {
        "support of the changed labels by neighbours": support,
        "gain of the neighbours' agreement, all images": agreement_gain(before_N, after_N, evidence),
        "classes in effect before": classes_in_effect(probs_NC),
        "classes in effect after": classes_in_effect(refined_NC),
        "agreement with a stronger text anchor": alike(again(text_weight=3.0), after_N),
        "agreement with even classes": alike(again(mix=0.0), after_N),
        "agreement with the mix counted twice": alike(again(mix=2.0), after_N),
        "agreement of two halves": halves(probs_NC, evidence),
        "share of labels changed": -changed / len(before_N),
        "text against the changes": -float(
            (probs_NC.amax(dim=1) / probs_NC.gather(1, after_N[:, None])[:, 0].clamp_min(1e-9)).log().mean()
        ),
    }


def alike(other_NC: torch.Tensor, label_N: torch.Tensor) -> float:
    return float((other_NC.argmax(dim=1) == label_N).float().mean())


def agreement_gain(before_N: torch.Tensor, after_N: torch.Tensor, evidence: Evidence) -> float:
    """Neighbours' kappa after less before, of the member that gains least: what the guards of other steps look at."""
    own, gains = torch.arange(len(before_N)), []
    for features_ND in evidence.image_features_ND.split(evidence.widths, dim=1):
        near_NK = guards.others(features_ND, own, own)
        gains.append(guards.kappa(after_N, near_NK) - guards.kappa(before_N, near_NK))
    return min(gains)


def halves(probs_NC: torch.Tensor, evidence: Evidence) -> float:
    """Each half fitted alone against both together: how many labels are the same?"""
    whole_N = STEPS["recommended"](probs_NC, evidence).argmax(dim=1)
    half_N = torch.rand(len(probs_NC), generator=torch.Generator().manual_seed(0)) < 0.5
    same = [
        (STEPS["recommended"](*some(probs_NC, evidence, part_N)).argmax(dim=1) == whole_N[part_N]).float().sum()
        for part_N in (half_N, ~half_N)
        if part_N.any()
    ]
    return float(sum(same)) / len(whole_N)


def cases() -> list[Case]:
    """All sets, encoders, mixes and draws of the train folders."""
    found = []
    for dataset in SETS:
        images = load(FOLDER, dataset, "train")
        for encoder, (noise, pull) in ENCODERS.items():
            probs_NC, evidence = with_evidence(changed(images, noise, pull))
            found += drawn(dataset, probs_NC, evidence, images.truth_N, others=encoder == "as it is")
            print(f"{dataset}, {encoder}: {len(found)} mixes", flush=True)
    return found


def drawn(where: str, probs_NC: torch.Tensor, evidence: Evidence, truth_N: torch.Tensor, others: bool) -> list[Case]:
    found = []
    for mix in mixes.MIXES:
        for seed in range(1 if mix == "all" else DRAWS):
            rows = mixes.rows(truth_N, mix, 1000 + seed)
            if len(rows) >= 20:
                found.append(case(where, mix, *some(probs_NC, evidence, rows), truth_N[rows], others))
    return found


def demo() -> list[Case]:
    """The demo's two models on its rendered scenes."""
    task = CompetitionTask(Project(ROOT), "demo", dtype_name="fp32")
    recipe = task.project.ensemble("demo")
    pooled_NC = classes.decide(task, "demo").pooled
    evidence = classes.evidence(task, recipe, lambda member: made(ensemble.part(task, recipe, member)))
    labels = (ROOT / "demo" / "solution.csv").read_text().split()[1:]
    truth_N = torch.tensor([int(line.split(",")[1]) for line in labels])
    return drawn("demo", pooled_NC, evidence, truth_N, others=True)


def roc_area(sign_K: np.ndarray, lost_K: np.ndarray) -> float:
    """Chance that a mix that loses has the lower sign than one that does not."""
    rank_K, losses = rankdata(-sign_K), int(lost_K.sum())
    return float((rank_K[lost_K].sum() - losses * (losses + 1) / 2) / max(losses * (len(lost_K) - losses), 1))


def signs_table(found: list[Case]) -> list[str]:
    lost_K = np.array([one.gain["recommended, unguarded"] < -1 for one in found])
    images_K = np.array([one.images for one in found])
    lines = ["| sign | area under its ROC curve, by set | all |", "|---|---|---|"]
    for sign in found[0].sign:
        sign_K = np.array([one.sign[sign] for one in found])
        each = [roc_area(sign_K[images_K == name], lost_K[images_K == name]) for name in dict.fromkeys(images_K)]
        lines.append(f"| {sign} | {', '.join(f'{area:.2f}' for area in each)} | {roc_area(sign_K, lost_K):.2f} |")
    return lines


def gains_table(found: list[Case], ways: list[str]) -> list[str]:
    """Mean gain and the worst single mix, by set and mix."""
    lines = [f"| images | mix | {' | '.join(ways)} |", f"|---|---|{'---|' * len(ways)}"]
    for images in dict.fromkeys(one.images for one in found):
        for mix in mixes.MIXES:
            gains = [one.gain for one in found if (one.images, one.mix) == (images, mix)]
            if gains:
                cells = [f"{statistics.mean(g[w] for g in gains):+.1f} [{min(g[w] for g in gains):+.1f}]" for w in ways]
                lines.append(f"| {images} | {mix} | {' | '.join(cells)} |")
    return lines


def summary(found: list[Case]) -> str:
    """The figures that the guards were chosen by."""
    guarded, plain = "recommended, guarded", "discriminant, unguarded"
    aimed = [one for one in found if one.mix in AIM]
    kept = statistics.mean(one.gain[guarded] for one in aimed) / statistics.mean(one.gain[plain] for one in aimed)
    big = [one for one in found if one.number >= BIG]
    worse = {way: sum(one.gain[way] < -2 for one in big) for way in (guarded, plain)}
    return (
        f"Over the mixes {', '.join(AIM)} the guarded chain gains {kept:.0%} of what the unguarded discriminant does. "
        f"Of {len(big)} mixes of {BIG} images or more, {worse[guarded]} lose more than 2 points, of the unguarded "
        f"discriminant {worse[plain]}; the worst loses {-min(one.gain[guarded] for one in big):.1f}."
    )


def steps_table(found: list[Case]) -> list[str]:
    """Other steps with and without their guards, over all mixes of a set."""
    found = [one for one in found if "prior, guarded" in one.gain]
    lines = ["| step | images | unguarded | guarded |", "|---|---|---|---|"]
    for step in ("recommended", *OTHER_STEPS):
        for images in dict.fromkeys(one.images for one in found):
            cells = []
            for kind in ("unguarded", "guarded"):
                gains = [one.gain[f"{step}, {kind}"] for one in found if one.images == images]
                cells.append(f"{statistics.mean(gains):+.1f} [{min(gains):+.1f}]")
            lines.append(f"| {step} | {images} | {' | '.join(cells)} |")
    return lines


ABOUT = f"""Train folders only, lit_mobilenet_minilm as in bench/methods.py, {len(ENCODERS)} strengths of the encoder
({", ".join(ENCODERS)}), {DRAWS} draws of each mix. A sign is good where its area is: the chance that a mix on which the
unguarded recommended chain loses more than a point has the worse sign than one on which it does not; 0.5 says nothing.
Gains are points over seed 004's algorithm, the mean and in brackets the worst single mix."""
WAYS = ["discriminant, unguarded", "recommended, unguarded", "recommended, guarded"]


def main(which: str = "train") -> str:
    """Measure, and return the Markdown tables."""
    torch.set_num_threads(1)
    with contextlib.chdir(ROOT):
        found = demo() if which == "demo" else cases()
    lines = ["### Guards of refinement (bench/guards.py)", "", ABOUT, "", summary(found), "", *signs_table(found), ""]
    return "\n".join([*lines, *gains_table(found, WAYS), "", *steps_table(found)])


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
