"""Calibration of guards around refinement: which sign, without labels, tells changes that help from those that harm?

Many class mixes are drawn from the train folders of two labelled sets (../shared) and from one of them degraded, with
the encoder as it is, weaker by noise, stronger by a pull of images towards the text of their class, and with other
biases of its texts by three of the prompts alone. What is chosen here is then measured by bench/methods.py on the test
folders. The demo's rendered scenes are a third kind of images that takes no part in the choice:
`python bench/guards.py demo` measures them, and `python bench/guards.py train 40` draws more mixes (half an hour).
"""

import contextlib
import functools
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mixes
import numpy as np
import torch
from labelled import ROOT, write
from methods import FOLDER, SETS, WITNESS, Images, class_texts, load, with_evidence
from scipy.stats import rankdata

from pipeline.chain import classes, ensemble
from pipeline.chain import features as chain_features
from pipeline.chain.stage import made
from pipeline.chain.task import CompetitionTask
from pipeline.maths.refine import STEPS, Evidence, classes_in_effect, discriminant, guards
from pipeline.maths.zeroshot import normalise
from pipeline.recipes import Project

ENCODERS = {  # noise in standard deviations of a feature, pull towards the text of the true class, which three prompts
    "as it is": (0.0, 0.0, None),
    "a little noise": (1.0, 0.0, None),
    "weak": (3.0, 0.0, None),
    "better": (0.0, 0.05, None),
    "strong": (0.0, 0.12, None),
    "strong, with noise": (2.0, 0.1, None),
    "three prompts": (0.0, 0.0, 0),
    "three other prompts": (0.0, 0.0, 1),
    "three prompts, better": (0.0, 0.05, 0),
    "three other prompts, better": (0.0, 0.05, 1),
}
OTHER_STEPS = {
    "prior": {},
    "prior, gamma 0.5": {"gamma": 0.5},
    "stata": {},
    "transclip": {},
    "propagate": {},
    "frolic": {},
}
LIMITS, LEANS = (0.3, 0.45, 0.6), (3, 10, 30)
DRAWS = 3
AIM = ("three classes", "skewed 10:1", "skewed 30:1", "one dominates", "60 images", "Dirichlet(1)")
BIG = 100  # images of a mix whose single losses count
PLAIN = "discriminant, unguarded"
own_principal = discriminant.principal
own_support = guards.support
CHOSEN = {kind: f"recommended {kind}" for kind in ("alone", "with a witness")}


@dataclass(frozen=True)
class Kind:
    """All changes of one step on one mix from one class to another: how many, images gained, and the signs seen."""

    changes: int
    gained: int
    sign: dict[str, float]


@dataclass(frozen=True)
class Case:
    """One mix: where it is from, points gained by each way, and the kinds of change of the recommended step."""

    images: str
    encoder: str
    mix: str
    number: int
    gain: dict[str, float]
    kinds: tuple[Kind, ...]


@functools.lru_cache(maxsize=4)
def principal(features_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As the step's own, once for all settings that look at the same images."""
    return own_principal(features_ND)


class LastSupport:
    """As the guards' own, once for all settings that judge the same result."""

    def __init__(self):
        self.asked, self.answer = None, None

    def __call__(self, *asked):
        if self.asked is None or any(a is not b for a, b in zip(self.asked, asked, strict=True)):
            self.asked, self.answer = asked, own_support(*asked)
        return self.answer


def of_prompts(images: Images, seed: int | None) -> Images:
    """The same with three of its prompts, drawn by a seed."""
    if seed is None:
        return images
    every = list(dict.fromkeys(images.templates))
    kept = {every[n] for n in np.random.default_rng(seed).choice(len(every), 3, replace=False)}
    kept_P = torch.tensor([template in kept for template in images.templates])
    return replace(
        images,
        texts_PD=images.texts_PD[kept_P],
        prompt_class_P=images.prompt_class_P[kept_P],
        templates=tuple(template for template in images.templates if template in kept),
    )


def changed(images: Images, noise: float, pull: float, prompts: int | None = None) -> Images:
    """The same images as a weaker or stronger encoder would have them; the witness stays."""
    images, draw = of_prompts(images, prompts), torch.Generator().manual_seed(0)
    texts_CD = class_texts(images)
    towards_ND = pull * (texts_CD - texts_CD.mean(dim=0))[images.truth_N]
    features = {
        name: normalise(
            part_ND + towards_ND + noise * part_ND.std(dim=0).mean() * torch.randn(part_ND.shape, generator=draw)
        )
        for name, part_ND in images.features.items()
    }
    return replace(images, features=features)


def points(found_NC: torch.Tensor, probs_NC: torch.Tensor, truth_N: torch.Tensor) -> float:
    """Points of accuracy gained over the given probabilities."""
    right = (found_NC.argmax(dim=1) == truth_N).float() - (probs_NC.argmax(dim=1) == truth_N).float()
    return 100 * float(right.mean())


@contextlib.contextmanager
def settings(limit: float, leans: int) -> Iterator[None]:
    """Guards with another limit of support, and another lean on the mean of all."""
    before = guards.FINDS_MIX_ALONE, guards.WITH_A_WITNESS
    guards.FINDS_MIX_ALONE = guards.WITH_A_WITNESS = limit, leans
    yield
    guards.FINDS_MIX_ALONE, guards.WITH_A_WITNESS = before


def choices(probs_NC: torch.Tensor, evidence: Evidence) -> dict[str, torch.Tensor]:
    """The result of every setting of the recommended step and of its guards, and the plain discriminant's."""
    alone = replace(evidence, witness_ND=None)
    run = functools.partial(STEPS["discriminant"], probs_NC, alone)
    found = {PLAIN: guards.unguarded("discriminant", run, probs_NC, alone)[0]}
    for kind, name in CHOSEN.items():
        seen = alone if kind == "alone" else evidence
        if kind == "with a witness" and evidence.witness_ND is None:
            continue
        found[f"{name}, unguarded"] = refined_NC = STEPS["recommended"](probs_NC, seen)
        found[name] = kept("recommended", refined_NC, probs_NC, seen)
        for limit, leans in itertools.product(LIMITS, LEANS):
            with settings(limit, leans):
                found[f"{kind}, {limit:g}, {leans}"] = kept("recommended", refined_NC, probs_NC, seen)
    return found


def kept(name: str, refined_NC: torch.Tensor, probs_NC: torch.Tensor, evidence: Evidence) -> torch.Tensor:
    return guards.guarded(name, lambda: refined_NC, probs_NC, evidence)[0]


def others(probs_NC: torch.Tensor, evidence: Evidence) -> dict[str, torch.Tensor]:
    """The other steps without and with their guards."""
    found, alone = {}, replace(evidence, witness_ND=None)
    for step, arguments in OTHER_STEPS.items():
        name = step.partition(",")[0]
        run = functools.partial(STEPS[name], probs_NC, alone, **arguments)
        found[f"{step}, unguarded"] = guards.unguarded(name, run, probs_NC, alone)[0]
        found[step] = kept(name, found[f"{step}, unguarded"], probs_NC, alone)
    return found


def kinds(probs_NC: torch.Tensor, refined_NC: torch.Tensor, evidence: Evidence, truth_N: torch.Tensor) -> list[Kind]:
    """The kinds of change of a step, with what can be seen of each without a label."""
    old_N, new_N = probs_NC.argmax(dim=1), refined_NC.argmax(dim=1)
    changed_N, classes_C = old_N != new_N, range(probs_NC.shape[1])
    if not changed_N.any():
        return []
    support_N = torch.zeros(len(old_N))
    support_N[changed_N] = guards.support(probs_NC, refined_NC, evidence)[0]
    whole = {
        "mean support of all changes": float(support_N[changed_N].mean()),
        "classes in effect before": classes_in_effect(probs_NC),
        "classes in effect after": classes_in_effect(refined_NC),
    }
    found = []
    for old, new in ((old, new) for old in classes_C for new in classes_C if old != new):
        own_N = (old_N == old) & (new_N == new)
        if own_N.any():
            ratio = (probs_NC[own_N, new] + 1e-4).log() - (probs_NC[own_N, old] + 1e-4).log()
            z = (refined_NC[own_N, new] + 1e-4).log() - (refined_NC[own_N, old] + 1e-4).log()
            sign = {
                "support of this kind": float(support_N[own_N].mean()),
                "how little the text is against it": float(ratio.mean()),
                "how sure the step is": float(z.mean()),
                "how many there are": int(own_N.sum()),
                "how large the new class was": int((old_N == new).sum()) / len(old_N),
            }
            gained = int((truth_N[own_N] == new).sum()) - int((truth_N[own_N] == old).sum())
            found.append(Kind(int(own_N.sum()), gained, sign | whole))
    return found


def drawn(
    where: str, encoder: str, probs_NC: torch.Tensor, evidence: Evidence, truth_N: torch.Tensor, draws: int
) -> list[Case]:
    found = []
    for mix in mixes.MIXES:
        for seed in range(1 if mix == "all" else draws):
            rows = mixes.rows(truth_N, mix, 1000 + seed)
            if len(rows) < 20:
                continue
            given, truth = (probs_NC[rows], evidence.some(rows)), truth_N[rows]
            results = choices(*given) | (others(*given) if encoder == "as it is" else {})
            gain = {way: points(result_NC, given[0], truth) for way, result_NC in results.items()}
            alone = replace(given[1], witness_ND=None)
            seen = kinds(given[0], results[f"{CHOSEN['alone']}, unguarded"], alone, truth)
            found.append(Case(where, encoder, mix, len(rows), gain, tuple(seen)))
    return found


def cases(draws: int) -> list[Case]:
    """All sets, encoders and mixes of the train folders."""
    found = []
    for dataset in SETS:
        images = load(FOLDER, dataset, "train")
        for encoder, strength in ENCODERS.items():
            probs_NC, evidence = with_evidence(changed(images, *strength))
            evidence = replace(evidence, witness_ND=images.witness_ND)
            found += drawn(dataset, encoder, probs_NC, evidence, images.truth_N, draws)
            print(f"{dataset}, {encoder}: {len(found)} mixes", flush=True)
    return found


def demo() -> list[Case]:
    """The demo's two models on its rendered scenes, and the witness."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "models.yaml", {"witness": WITNESS})
        task = CompetitionTask(Project(ROOT).over(Path(folder)), "demo", dtype_name="fp32")
        recipe = task.project.ensemble("demo")
        pooled_NC = classes.decide(task, "demo").pooled
        evidence = classes.evidence(task, recipe, lambda member: made(ensemble.part(task, recipe, member)))
        witness, _ = chain_features.of_member(task, task.project.member("witness"))
        seen_ND = witness.rows("features", 0, len(task.images.ids)).float()
    labels = (ROOT / "demo" / "solution.csv").read_text().split()[1:]
    truth_N = torch.tensor([int(line.split(",")[1]) for line in labels])
    return drawn("demo", "as it is", pooled_NC, replace(evidence, witness_ND=seen_ND), truth_N, 4 * DRAWS)


def roc_area(sign_K: np.ndarray, gained_K: np.ndarray) -> float:
    """Chance that an image lost is of a kind of change with a lower sign than an image gained."""
    lost_K, won_K = np.maximum(-gained_K, 0), np.maximum(gained_K, 0)
    rank_K = rankdata(sign_K, method="dense").astype(int) - 1
    lost_R, won_R = np.bincount(rank_K, lost_K), np.bincount(rank_K, won_K)
    below_R = np.cumsum(lost_R) - lost_R / 2
    return float((won_R * below_R).sum() / max(lost_K.sum() * won_K.sum(), 1))


def signs_table(found: list[Case]) -> list[str]:
    sets = dict.fromkeys(case.images for case in found)
    lines = [f"| sign of the changes from one class to another | {' | '.join(sets)} |", f"|---|{'---|' * len(sets)}"]
    for sign in next(case.kinds[0].sign for case in found if case.kinds):
        areas = []
        for images in sets:
            own = [kind for case in found if case.images == images for kind in case.kinds]
            signs, gained = (np.array(values) for values in zip(*((k.sign[sign], k.gained) for k in own), strict=True))
            areas.append(f"{roc_area(signs, gained):.2f}")
        lines.append(f"| {sign} | {' | '.join(areas)} |")
    return lines


def choices_table(found: list[Case]) -> list[str]:
    """What every setting gains and loses: the chosen one is the best of those that hardly ever lose."""
    big, aimed = [case for case in found if case.number >= BIG], [case for case in found if case.mix in AIM]
    lines = [
        f"| setting: limit, lean | mean gain | mixes aimed at | lost more than 2 points, of {len(big)} | worst |",
        "|---|---|---|---|---|",
    ]
    for way in (way for way in found[0].gain if way not in OTHER_STEPS and way.partition(",")[0] not in OTHER_STEPS):
        mean, aim = (statistics.mean(case.gain[way] for case in some) for some in (found, aimed))
        lost, worst = sum(case.gain[way] < -2 for case in big), min(case.gain[way] for case in big)
        lines.append(f"| {way} | {mean:+.2f} | {aim:+.2f} | {lost} | {worst:+.1f} |")
    return lines


def gains_table(found: list[Case], ways: list[str]) -> list[str]:
    """Mean gain and the worst single mix, by set and mix."""
    lines = [f"| images | mix | {' | '.join(ways)} |", f"|---|---|{'---|' * len(ways)}"]
    for images in dict.fromkeys(case.images for case in found):
        for mix in mixes.MIXES:
            gains = [case.gain for case in found if (case.images, case.mix) == (images, mix)]
            if gains:
                cells = [f"{statistics.mean(g[w] for g in gains):+.1f} [{min(g[w] for g in gains):+.1f}]" for w in ways]
                lines.append(f"| {images} | {mix} | {' | '.join(cells)} |")
    return lines


def steps_table(found: list[Case]) -> list[str]:
    """Other steps with and without their guards, over all mixes of a set, with the encoder as it is."""
    found = [case for case in found if case.encoder == "as it is"]
    lines = ["| step | images | unguarded | guarded |", "|---|---|---|---|"]
    for step in OTHER_STEPS:
        for images in dict.fromkeys(case.images for case in found):
            cells = []
            for way in (f"{step}, unguarded", step):
                gains = [case.gain[way] for case in found if case.images == images]
                cells.append(f"{statistics.mean(gains):+.1f} [{min(gains):+.1f}]")
            lines.append(f"| {step} | {images} | {' | '.join(cells)} |")
    return lines


ABOUT = f"""Train folders only, lit_mobilenet_minilm and its witness as in bench/methods.py, {len(ENCODERS)} strengths
of the encoder ({", ".join(ENCODERS)}), {{draws}} draws of each mix. All changes of the recommended step, unguarded,
from one class to another are judged together; a sign is good where its area under the ROC curve is: the chance that an
image lost is of a kind of change with a lower sign than an image gained; 0.5 says nothing. Gains are points over seed
004's algorithm, the mean and in brackets the worst single mix; a limit without a witness falls to 0.3 where labels tell
of all classes (`asked` in pipeline/maths/refine/guards.py); aimed at are {", ".join(AIM)}."""
WAYS = [PLAIN, *(f"{way}{more}" for way in CHOSEN.values() for more in (", unguarded", ""))]


def main(which: str = "train", draws: str = str(DRAWS)) -> str:
    """Measure, and return the Markdown tables."""
    torch.set_num_threads(1)
    discriminant.principal, guards.support = principal, LastSupport()
    with contextlib.chdir(ROOT):
        found = demo() if which == "demo" else cases(int(draws))
    lines = [
        "### Guards of refinement (bench/guards.py)",
        "",
        ABOUT.format(draws=draws),
        "",
        *signs_table(found),
        "",
        *choices_table(found),
    ]
    return "\n".join([*lines, "", *gains_table(found, WAYS), "", *steps_table(found)])


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
