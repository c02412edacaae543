"""Learning from labels on frozen features of two real towers: zero-shot, k-shot, probe, MLP, adapters, seen / unseen.

Needs ../shared (weights and photographs that are not part of the project). Everything is chosen on a part of train.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import labelled  # (the same data, project and encoder)

from pipeline.chain.task import CompetitionTask, Task
from pipeline.core import tables
from pipeline.learn import kshot, reported
from pipeline.learn.head import train_head
from pipeline.learn.trained import Trained
from pipeline.models import heads
from pipeline.recipes import Project, Training
from pipeline.report import training as pages

IMAGENET = labelled.SHARED / "weights" / "mobilenetv2_100_imagenet.safetensors"
TOWERS = {"mobilenet": "MobileNetV2 of ImageNet (image only)", "lit": "lit_mobilenet_minilm"}
SEEDS = 3
METHODS = {
    "linear probe": {"method": "linear_probe"},
    "linear probe, class weights": {"method": "linear_probe", "balance": "weights"},
    "linear probe, class weights, mean with mirror image": {
        "method": "linear_probe",
        "balance": "weights",
        "view": "@views1",
    },
    "MLP 512-256-128": {"method": "mlp"},
    "MLP 512-256-128, balanced sampling": {"method": "mlp", "balance": "sampling"},
    "Tip-Adapter": {"method": "tip_adapter"},
    "Tip-Adapter-F": {"method": "tip_adapter_f"},
    "CLIP-Adapter": {"method": "clip_adapter"},
    "cosine head": {"method": "cosine"},
    "cosine head, contrastive": {"method": {"cosine": {"loss": "contrastive"}}},
}
# classes that are never trained on here; the towers, made with ImageNet, may know some of them
UNSEEN = {"few-shot": 3, "intel-dev": 2}
SPLITS = 5
LEARNERS = {
    "cosine head, contrastive": {"cosine": {"loss": "contrastive"}},
    "CLIP-Adapter": "clip_adapter",
    "Tip-Adapter": "tip_adapter",
}


def project(folder: Path) -> None:
    """The project of bench/labelled.py with the image-only tower beside the encoder."""
    labelled.project(folder)
    entries = {
        "lit": {"family": "open_clip", "weights": str(labelled.WEIGHTS), "preprocess": "plain"},
        "mobilenet": {
            "family": "timm",
            "architecture": "mobilenetv2_100",
            "weights": str(IMAGENET),
            "size": 224,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "resize_mode": "squash",
            "preprocess": "plain",
            "options": {"pad_type": "same"},
        },
    }
    labelled.write(folder / "models.local.yaml", entries)


def task(folder: Path) -> Task:
    return CompetitionTask(Project(folder), "demo", dtype_name="fp32")


def quiet():
    return contextlib.redirect_stdout(io.StringIO())


def trained(folder: Path, name: str, **recipe) -> tuple[list[Trained], list[reported.Measured]]:
    content = Training.parse({"small": 0, **recipe}, name)
    with quiet():
        made = train_head(task(folder), content, name, name)
        return made, reported.measure_heads(task(folder), content, made)


def text(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ±{np.std(values, ddof=1):.3f}"


def methods_table(folder: Path) -> list[str]:
    """Every method on all training images: mean and standard deviation over seeds of acc1 and macro F1."""
    head = [
        "image tower",
        "method",
        *(f"{name} {measure}" for name in labelled.DATASETS for measure in ("acc1", "macro F1")),
    ]
    rows = []
    for tower, title in TOWERS.items():
        for name, recipe in METHODS.items():
            method = recipe["method"] if isinstance(recipe["method"], str) else next(iter(recipe["method"]))
            if tower == "mobilenet" and heads.METHODS[method].needs_text:
                continue
            recipe, cells = dict(recipe), []
            model = tower + recipe.pop("view", "")
            for dataset in labelled.DATASETS:
                scores = [
                    one.intervals
                    for seed in range(SEEDS)
                    for one in trained(
                        folder,
                        f"{tower}-{dataset}-{list(METHODS).index(name)}-{seed}",
                        model=model,
                        dataset=dataset,
                        seed=seed,
                        **recipe,
                    )[1]
                ]
                cells += [text([score[key].value for score in scores]) for key in ("acc1", "macro_f1")]
            rows.append([title, name, *cells])
            print(rows[-1], flush=True)
    return markdown(head, rows)


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [tables.markdown(head, rows), ""]


def kshot_parts(folder: Path) -> list[str]:
    """Table and plot of the k-shot curves of each tower and data set."""
    parts = []
    for tower, title in TOWERS.items():
        for dataset in labelled.DATASETS:
            with quiet():
                result = kshot.measure_curves(task(folder), tower, dataset, seeds=SEEDS)
            file = f"kshot-{tower}-{dataset}.svg"
            (Path(__file__).parent / file).write_text(pages.kshot_plot(result, standalone=True), encoding="utf-8")
            zero = f" Zero-shot: {result.zero_shot['acc1']:.3f}." if result.zero_shot else ""
            parts += [
                f"k-shot, {title}, {dataset}: acc1, mean over {SEEDS} seeds ± half of its 95 % interval.{zero}",
                "",
                *markdown(kshot.header(result), kshot.rows(result)),
                f"![{title}, {dataset}]({file})",
                "",
            ]
            print(f"kshot {tower} {dataset}", flush=True)
    return parts


def unseen_parts(folder: Path) -> list[str]:
    """Seen and unseen classes: every learner's best for both, beside zero-shot with a bias chosen alike."""
    parts = []
    for dataset, number in UNSEEN.items():
        values: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        for seed in range(SPLITS):
            found, mask = unseen_split(folder, dataset, number, seed)
            for one in found:
                for (_, groups, _), way in zip(one.groups(mask), ("none", "chosen"), strict=True):
                    values.setdefault((one.name, way), []).append((*groups, one.curve(mask).area))
            if seed == 0:
                plot = pages.seen_unseen_plot(found, mask, standalone=True)
                file = f"unseen-{dataset}.svg"
                (Path(__file__).parent / file).write_text(plot, encoding="utf-8")
        rows = [[name, way, *map(text, zip(*runs, strict=True))] for (name, way), runs in values.items()]
        head = ["head", "bias", "seen", "unseen", "harmonic mean", "AUSUC"]
        parts += [
            f"Seen and unseen, lit_mobilenet_minilm, {dataset}: {number} classes never trained on, drawn "
            f"{SPLITS} times; mean ± standard deviation over the draws. The plot is of the first.",
            "",
            *markdown(head, rows),
            f"![seen over unseen accuracy, {dataset}]({file})",
            "",
        ]
        print(f"unseen {dataset}", flush=True)
    return parts


def unseen_split(folder: Path, dataset: str, number: int, seed: int) -> tuple[list[reported.Measured], np.ndarray]:
    """Every learner on one draw of unseen classes, zero-shot last; and the mask of the unseen."""
    found = []
    for place, (name, method) in enumerate(LEARNERS.items()):
        made, measured = trained(
            folder,
            f"unseen-{dataset}-{place}-{seed}",
            model="lit",
            dataset=dataset,
            method=method,
            unseen={"number": number, "seed": seed},
        )
        best = measured[0]
        found.append(reported.Measured(name, best.task, best.examples, best.head))
    return [*found, measured[-1]], reported.unseen_of(made[0])


def main() -> str:
    """Measure, and return the Markdown tables."""
    head = ["### Learning from labels (bench/training.py)", ""]
    needed = (*labelled.DATASETS.values(), labelled.WEIGHTS, IMAGENET)
    absent = [str(path.relative_to(ROOT.parent)) for path in needed if not path.exists()]
    if absent:
        return "\n".join([*head, f"Not measured: {', '.join(absent)} not there, beside the project's folder."])
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(ROOT):  # the tokenizer's path is from the project
        project(Path(name))
        return "\n".join([*head, *measured(Path(name))])


def measured(folder: Path) -> list[str]:
    """The section below its heading. What is finished in `folder` is not measured again."""
    parts = [*methods_table(folder), *kshot_parts(folder), *unseen_parts(folder)]
    return [
        "Frozen features, fp32. few_shot: 234 training and 503 test photographs of vehicles, 8 classes, imbalanced; "
        "intel_dev: 600 and 900 of scenes, 6 classes. A quarter of each class's training images chooses settings, "
        "epochs and the bias; the test images are only measured. ± in the first table is the standard deviation over "
        f"{SEEDS} seeds (other validation images, other random numbers).",
        "",
        *parts,
    ]


if __name__ == "__main__":
    print(main())
