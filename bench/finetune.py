"""Fine-tuning two real towers on scenes, beside what they start from: a linear probe, zero-shot.

Needs ../shared (weights and photographs that are not part of the project). Everything is chosen on a part of train.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import labelled  # (the same data)

import training  # (the same project)
from pipeline.learn import reported
from pipeline.learn.head import train_head
from pipeline.learn.tower import measure_tower, train_tower
from pipeline.maths import metrics
from pipeline.recipes import Training

DATASET = "intel-dev"
PIXELS = 160  # what the photographs have, and half the work of 224
SEEDS = {"mobilenet@squash160": (0, 1, 2), "lit": (0,)}
SETTINGS = {
    # of two settings tried, this one had the better macro F1 on validation images
    "mobilenet@squash160": {
        "loss": "likelihood",
        "epochs": 10,
        "batch": 32,
        "learning_rate": 3e-4,
        "head_learning_rate": 3e-3,
    },
    "lit": {"loss": "contrastive", "epochs": 4, "batch": 32, "learning_rate": 1e-4},
}


def project(folder: Path) -> None:
    """The project of bench/training.py, its image-only tower allowed to see fewer pixels."""
    training.project(folder)
    entries = yaml.safe_load((folder / "models.local.yaml").read_text())
    entries["mobilenet"]["allow"] = ["size"]
    labelled.write(folder / "models.local.yaml", entries)
    labelled.write(folder / "preprocess" / f"squash{PIXELS}.yaml", {"size": PIXELS, "ops": [{"resize": "squash"}]})


def finetune(folder: Path, model: str, seed: int) -> tuple[list[reported.Measured], dict, float]:
    """(the tuned tower and what it started from, the record, seconds)."""
    content = {"model": model, "dataset": DATASET, "method": {"finetune": SETTINGS[model]}, "small": 0, "seed": seed}
    recipe, began = Training.parse(content, model), time.perf_counter()
    with training.quiet():
        made = train_tower(training.task(folder), recipe, f"{model.partition('@')[0]}{seed}", model)[0]
        seconds = time.perf_counter() - began
        return measure_tower(training.task(folder), recipe, made, model), made.record, seconds


def probe(folder: Path, model: str, seed: int) -> reported.Measured:
    """A linear probe, fitted again with its validation images as `make probe` does."""
    content = {"model": model, "dataset": DATASET, "method": "linear_probe", "small": 0, "seed": seed}
    recipe, name = Training.parse(content, model), f"probe-{model.replace('@', '.')}-{seed}"
    with training.quiet():
        return reported.measure_heads(
            training.task(folder), recipe, train_head(training.task(folder), recipe, name, name)
        )[0]


def row(model: str, what: str, one: reported.Measured, against: reported.Measured | None, more: str = "") -> list[str]:
    values = [f"{v.value:.3f} ({v.low:.3f} to {v.high:.3f})" for v in (one.intervals[k] for k in ("acc1", "macro_f1"))]
    p = f"{metrics.mcnemar(one.predictions.right, against.predictions.right):.2g}" if against else ""
    return [model, what, *values, f"{one.intervals['ece'].value:.3f}", p, more]


def measure(folder: Path) -> list[list[str]]:
    found = []
    for model, seed in ((model, seed) for model, seeds in SEEDS.items() for seed in seeds):
        name = f"{model}, seed {seed}"
        (tuned, start), record, seconds = finetune(folder, model, seed)
        chosen = ", ".join(f"{key} {value:g}" for key, value in record["setting"].items())
        if model == "lit":
            before, title = start, "zero-shot"
        else:
            before, title = probe(folder, model, seed), "linear probe"
        remark = f"{chosen}; {seconds:.0f} s"
        found += [row(name, title, before, None), row(name, "fine-tuned", tuned, before, remark)]
        print(found[-2:], flush=True)
    larger = probe(folder, "mobilenet@plain", 0)
    return [*found, row("mobilenet@plain (224 pixels), seed 0", "linear probe", larger, None)]


def main() -> str:
    """Measure, and return the Markdown table."""
    head = ["### Fine-tuning (bench/finetune.py)", ""]
    needed = (labelled.DATASETS[DATASET], labelled.WEIGHTS, training.IMAGENET)
    absent = [str(path.relative_to(ROOT.parent)) for path in needed if not path.exists()]
    if absent:
        return "\n".join([*head, f"Not measured: {', '.join(absent)} not there, beside the project's folder."])
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(ROOT):  # the tokenizer's path is from the project
        project(Path(name))
        table = measure(Path(name))
    columns = ["tower", "", "acc1", "macro F1", "ECE", "p", "chosen on validation; training time"]
    settings = "; ".join(f"{model}: {value}" for model, value in SETTINGS.items())
    return "\n".join(
        [
            *head,
            "900 test photographs of scenes, 6 classes; 600 for training, of which a quarter of each class chooses "
            "epoch and alpha (the probe is fitted again with them, the towers are not); of two settings tried "
            "for the first tower the better one by validation macro F1. Bootstrap 95 % intervals; p: McNemar's "
            "against the row above. "
            f"One process, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}.",
            "",
            *training.markdown(columns, table),
            f"Settings: {settings}.",
        ]
    )


if __name__ == "__main__":
    print(main())
