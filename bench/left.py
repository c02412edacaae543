"""What was tried and left: self-training after `recommended`, and centring and temperatures of each image by itself.

Measured so that the figures in docs/score.md can be had again, on the train folders of bench/methods.py; with `test`
as argument on the test folders. Views are in bench/labelled.py.
"""

import contextlib
import functools
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace

import mixes
import torch
from labelled import ROOT
from methods import FOLDER, SETS, Images, load, members, pooled, seed_004, with_evidence

from pipeline.maths import zeroshot
from pipeline.maths.refine import STEPS, Evidence, unit_rows
from pipeline.maths.refine.guards import guarded

DRAWS = 3
PENALTIES = (0.001, 0.01, 0.1)
SURE = 0.9
TEMPERATURES = (0.25, 0.5, 2.0, 4.0, 10.0)
KEPT = "recommended with a witness, guarded"
Changes = dict[str, torch.Tensor]


def adapter(probs_NC: torch.Tensor, evidence: Evidence, known_N: torch.Tensor, penalty: float) -> torch.Tensor:
    """Class probabilities of a linear adapter, combined with the given ones as a prior; (N, C) -> (N, C).

    A logistic regression on members' and witness's features, standardised, fitted to the labels of `known_N` with
    classes weighed evenly.
    """
    from sklearn.linear_model import LogisticRegression

    seen_ND = torch.cat([part.float() for part in evidence.spaces], dim=1)
    seen_ND = (seen_ND - seen_ND.mean(dim=0)) / seen_ND.std(dim=0).clamp_min(1e-6) / seen_ND.shape[1] ** 0.5
    label_N = probs_NC.argmax(dim=1)
    if len(label_N[known_N].unique()) < 2:
        return probs_NC
    fitted = LogisticRegression(C=1 / penalty, max_iter=200, class_weight="balanced")
    fitted.fit(seen_ND[known_N].numpy(), label_N[known_N].numpy())
    found_NC = torch.full(probs_NC.shape, -20.0)
    found_NC[:, fitted.classes_] = torch.from_numpy(fitted.predict_log_proba(seen_ND.numpy())).float().clamp_min(-20)
    return (found_NC + unit_rows(probs_NC).log()).softmax(dim=1)


def self_training(probs_NC: torch.Tensor, evidence: Evidence) -> Changes:
    """After `recommended` with a witness: fitted to labels that are sure, or that fits with and without it agree on."""
    keep = functools.partial(guarded, "recommended")
    first_NC = keep(lambda: STEPS["recommended"](probs_NC, evidence), probs_NC, evidence)[0]
    alone = replace(evidence, witness_ND=None)
    other_NC = keep(lambda: STEPS["recommended"](probs_NC, alone), probs_NC, alone)[0]
    sure_N = unit_rows(first_NC).amax(dim=1) > SURE
    agreed_N = first_NC.argmax(dim=1) == other_NC.argmax(dim=1)
    found = {KEPT: first_NC}
    for which, known_N in (("sure", sure_N), ("agreed on", agreed_N)):
        for penalty in PENALTIES:
            trained_NC = adapter(first_NC, evidence, known_N, penalty)
            name = f"self-training on labels that are {which}, penalty {penalty:g}"
            found[name] = trained_NC
            found[f"{name}, guarded"] = keep(lambda made=trained_NC: made, first_NC, evidence)[0]
    return found


def blended(images: Images, parts: list[torch.Tensor]) -> torch.Tensor:
    return pooled(images, zeroshot.threshold(zeroshot.blend(parts, [1.0] * len(parts)), 0.002))


def centred(images: Images, others: dict[str, torch.Tensor], texts: bool) -> torch.Tensor:
    """Features less the mean of other photographs, and perhaps texts less that of all texts."""
    texts_PD = zeroshot.normalise(images.texts_PD - images.texts_PD.mean(dim=0)) if texts else images.texts_PD
    parts = [zeroshot.normalise(part_ND - others[name].mean(dim=0)) for name, part_ND in images.features.items()]
    return blended(images, [zeroshot.prompt_probs(part_ND, texts_PD, images.logit_scale) for part_ND in parts])


def alone(images: Images, others: dict[str, torch.Tensor]) -> dict[str, Callable[[], torch.Tensor]]:
    """Ways that look at one image at a time."""
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "centred by the mean of other photographs": lambda: centred(images, others, False),
        "the same, texts centred as well": lambda: centred(images, others, True),
    }
    for factor in TEMPERATURES:
        ways[f"temperature {factor:g} of all members"] = lambda factor=factor: blended(
            images, [zeroshot.temper(part, factor) for part in members(images)]
        )
    return ways


def points(after_NC: torch.Tensor, before_NC: torch.Tensor, truth_N: torch.Tensor) -> float:
    right = (after_NC.argmax(dim=1) == truth_N).float() - (before_NC.argmax(dim=1) == truth_N).float()
    return 100 * float(right.mean())


def trained_gains(images: Images) -> dict[str, list[float]]:
    """Points over `recommended` with a witness and guards, of every way and mix."""
    probs_NC, evidence = with_evidence(images)
    evidence, gains = replace(evidence, witness_ND=images.witness_ND), {}
    for mix in mixes.MIXES:
        for seed in range(1 if mix == "all" else DRAWS):
            rows = mixes.rows(images.truth_N, mix, 1000 + seed)
            if len(rows) < 20:
                continue
            found = self_training(probs_NC[rows], evidence.some(rows))
            for way, after_NC in found.items():
                gains.setdefault(way, []).append(points(after_NC, found[KEPT], images.truth_N[rows]))
    return {way: values for way, values in gains.items() if way != KEPT}


def table(what: str, found: dict[str, dict[str, list[float]]]) -> list[str]:
    """A row per way: the mean of each set, and in brackets the worst where there are several mixes."""
    lines = [f"| {what} | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for way in next(iter(found.values())):
        cells = []
        for gains in found.values():
            worst = f" [{min(gains[way]):+.1f}]" if len(gains[way]) > 1 else ""
            cells.append(f"{statistics.mean(gains[way]):+.1f}{worst}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def main(split: str = "train") -> str:
    """Measure, and return the Markdown tables."""
    torch.set_num_threads(1)
    trained, single = {}, {}
    with contextlib.chdir(ROOT):
        sets = {dataset: load(FOLDER, dataset, split) for dataset in SETS}
        for dataset, images in sets.items():
            of_others = "intel-dev" if dataset == "few-shot" else "few-shot"
            base_NC = seed_004(images)
            ways = alone(images, sets[of_others].features)
            single[dataset] = {way: [points(found(), base_NC, images.truth_N)] for way, found in ways.items()}
            trained[dataset] = trained_gains(images)
            print(f"{dataset} done", flush=True)
    about = (
        f"The {split} folders. Each image by itself: points over seed 004's algorithm on all images; other "
        "photographs are those of the other set, of the same split. Self-training: a logistic regression on the "
        "features of members and witness, points over what `recommended` with a witness and guards gives it; mean of "
        f"{DRAWS} draws of each mix, and in brackets the worst."
    )
    lines = ["### Tried and left (bench/left.py)", "", about, "", *table("each image by itself", single), ""]
    return "\n".join([*lines, *table("self-training", trained)])


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
