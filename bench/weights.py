"""Calibration of `weights: auto`: when are member weights that are found without a label better than even ones?

Pools of members are made from the train folders of bench/methods.py: the two real members, weaker ones by noise (each
its own, or nearly one for two of them), stronger ones by a pull towards the text of the true class, ones whose texts
are off, and the same photographs at the other resolution. Mixes of classes are those of bench/mixes.py.
"""

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import guards as bench_guards
import mixes
import torch
from labelled import ROOT
from methods import FOLDER, SETS, Images, load, pooled

from pipeline.maths import consensus, zeroshot
from pipeline.maths.refine import guards

Part = tuple[torch.Tensor, torch.Tensor]  # a member: its image features (N, D), and its texts (P, D)
DRAWS, BIG = 3, 100
LIMITS = (None, 0.0, 0.01, consensus.CLEARLY, 0.03)


@dataclass(frozen=True)
class Case:
    """One mix of one pool: images, points over even weights by each way, and how much better neighbours agree."""

    pool: str
    number: int
    gain: dict[str, float]
    kappa: dict[str, float]


def noisy(features_ND: torch.Tensor, strength: float, seed: int, shared: float = 0.0) -> torch.Tensor:
    """Features with noise, in standard deviations; `shared` of it is the same for all seeds."""
    own, common = (torch.randn(features_ND.shape, generator=torch.Generator().manual_seed(s)) for s in (seed, 9))
    noise_ND = shared**0.5 * common + (1 - shared) ** 0.5 * own
    return zeroshot.normalise(features_ND + strength * features_ND.std(dim=0).mean() * noise_ND)


def off(images: Images, strength: float, seed: int) -> torch.Tensor:
    """The texts, those of each class moved in a direction of its own."""
    texts_PD, draw = images.texts_PD, torch.Generator().manual_seed(seed)
    towards_CD = zeroshot.normalise(torch.randn(images.classes, texts_PD.shape[1], generator=draw))
    length = (texts_PD - texts_PD.mean(dim=0)).norm(dim=1).mean()
    return zeroshot.normalise(texts_PD + strength * length * towards_CD[images.prompt_class_P])


def pools(images: Images, other: Images | None) -> dict[str, list[Part]]:
    """Members by what they are."""
    plain, sharp, texts = images.features["plain"], images.features["sharp"], images.texts_PD
    strong = bench_guards.changed(images, 0.0, 0.08).features["plain"]
    weak, alike = [noisy(plain, 2.0, seed) for seed in (1, 2)], [noisy(plain, 2.0, seed, 0.9) for seed in (1, 2)]
    very = [noisy(plain, 4.0, seed) for seed in (3, 4)]
    found = {
        "plain, sharp, weak": [plain, sharp, weak[0]],
        "plain, two weak": [plain, *weak],
        "plain, two weak that err alike": [plain, *alike],
        "strong, plain, weak": [strong, plain, weak[0]],
        "strong, plain, sharp": [strong, plain, sharp],
        "strong, two weak that err alike": [strong, *alike],
        "plain, sharp, two very weak": [plain, sharp, *very],
    }
    known = {name: [(part, texts) for part in parts] for name, parts in found.items()}
    known["plain, sharp, and texts that are off"] = [(plain, texts), (sharp, texts), (sharp, off(images, 1.0, 2))]
    known["plain, and two with texts that are off"] = [(plain, texts), *((plain, off(images, 1.0, s)) for s in (3, 4))]
    if other is not None:
        known["plain, sharp, other resolution"] = [(plain, texts), (sharp, texts), (other.features["plain"], texts)]
    return known


def agreement(label_MN: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights by how often a member says what the others do, instead of by Dawid and Skene's model."""
    same_MM = (label_MN[:, None] == label_MN).double().mean(dim=2)
    share_M = (same_MM.sum(dim=1) - 1) / (len(label_MN) - 1)
    worth_M = share_M.clamp(1 / classes + 0.01, 0.99).logit().clamp_min(0.01)
    return worth_M / worth_M.sum()


def neighbours(spaces: list[torch.Tensor], before_N: torch.Tensor, after_N: torch.Tensor) -> float:
    """The least gain of neighbours' agreement, as `consensus.no_better` has it."""
    if len(before_N) < consensus.FEWEST:
        return float("-inf")
    every = torch.arange(len(before_N))
    near = [guards.others(features_ND, every, every) for features_ND in spaces]
    return min(guards.kappa(after_N, near_NK) - guards.kappa(before_N, near_NK) for near_NK in near)


WAYS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "agreement": agreement,
    "Dawid and Skene": consensus.dawid_skene,
}


def cases_of(images: Images, pool: str, parts: list[Part]) -> list[Case]:
    """All mixes of one pool."""
    probs = [zeroshot.prompt_probs(features_ND, texts_PD, images.logit_scale) for features_ND, texts_PD in parts]
    own = torch.stack([pooled(images, part).argmax(dim=1) for part in probs])
    found = []
    for mix in mixes.MIXES:
        for seed in range(1 if mix == "all" else DRAWS):
            rows = mixes.rows(images.truth_N, mix, 1000 + seed)
            if len(rows) < 20:
                continue
            gain, kappa, truth_N = {}, {}, images.truth_N[rows]

            def blend(weights: list[float], rows: torch.Tensor = rows) -> torch.Tensor:
                return pooled(images, zeroshot.blend([part[rows] for part in probs], weights)).argmax(dim=1)

            even_N = blend([1.0] * len(parts))
            for way, weigh in WAYS.items():
                found_N = blend(weigh(own[:, rows], images.classes).tolist())
                gain[way] = 100 * float(((found_N == truth_N).float() - (even_N == truth_N).float()).mean())
                kappa[way] = neighbours([features_ND[rows] for features_ND, _ in parts], even_N, found_N)
            found.append(Case(pool, len(rows), gain, kappa))
    return found


def table(found: list[Case]) -> list[str]:
    """A row per way and limit: the gain, the pool that fares worst, and single mixes."""
    big = sum(case.number >= BIG for case in found)
    lines = [
        f"| weights | neighbours must agree better by | mean gain | worst pool | lost more than 2 points, of {big} | "
        f"worst mix | of {len(found)} mixes gain, lose |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        for limit in LIMITS:
            taken = [case.gain[way] if limit is None or case.kappa[way] >= limit else 0.0 for case in found]
            means = {
                pool: statistics.mean(gain for gain, case in zip(taken, found, strict=True) if case.pool == pool)
                for pool in dict.fromkeys(case.pool for case in found)
            }
            worst = min(means, key=lambda pool: means[pool])
            lost = sum(gain < -2 and case.number >= BIG for gain, case in zip(taken, found, strict=True))
            asked = "(taken as found)" if limit is None else f"{limit:g}"
            lines.append(
                f"| {way} | {asked} | {statistics.mean(taken):+.2f} | {means[worst]:+.2f} ({worst}) | {lost} | "
                f"{min(taken):+.1f} | {sum(gain > 0.01 for gain in taken)}, {sum(gain < -0.01 for gain in taken)} |"
            )
    return lines


ABOUT = f"""Train folders only, {DRAWS} draws of each mix, points over even weights. The last limit but one is that of
`weights: auto`, with weights by Dawid and Skene's model. Limits are asked of {consensus.FEWEST} images or more; fewer
keep even weights."""


def main() -> str:
    """Measure, and return the Markdown table."""
    torch.set_num_threads(1)
    found = []
    with contextlib.chdir(ROOT):
        sets = {dataset: load(FOLDER, dataset, "train") for dataset in SETS}
        twins = {"intel-dev": "intel-32px", "intel-32px": "intel-dev"}
        for dataset, images in sets.items():
            for pool, parts in pools(images, sets.get(twins.get(dataset, ""))).items():
                found += cases_of(images, pool, parts)
            print(f"{dataset}: {len(found)} mixes", flush=True)
    return "\n".join(["### Weights of members without labels (bench/weights.py)", "", ABOUT, "", *table(found)])


if __name__ == "__main__":
    print(main())
