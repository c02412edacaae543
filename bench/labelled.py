"""Zero-shot accuracy of a real dual encoder on two labelled sets: prompts, poolings, views, chosen templates.

Needs ../shared (weights and photographs that are not part of the project); templates are chosen on train alone.
"""

import contextlib
import io
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.chain.task import CompetitionTask
from pipeline.core.tables import markdown
from pipeline.labelled import benchmark, prompt_subsets
from pipeline.labelled.choosing import sampled_truth
from pipeline.labelled.task import DatasetTask
from pipeline.recipes import Benchmark, Project

SHARED = ROOT.parent / "shared"
DATASETS = {"few-shot": SHARED / "data" / "few_shot", "intel-dev": SHARED / "data" / "intel_dev"}
WEIGHTS = SHARED / "weights" / "lit_mobilenet_minilm"
POOLINGS = ("embedding", "mean", "median", "max", "logit_mean", "logit_median", "logit_max")
VIEWS = {
    "one view": None,
    "flip": {"views": ["identity", "hflip"]},
    "flip, rotate by 25 and -25 degrees": {"views": ["identity", "hflip", {"rotate": 25}, {"rotate": -25}]},
    "flip, five crops": {"views": ["identity", "hflip", "five_crop"]},
    "flip, five crops, the 4 surest of 7": {
        "views": ["identity", "hflip", "five_crop"],
        "view_pooling": "confident",
        "keep_views": 4,
    },
}


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def project(folder: Path) -> None:
    """This project's recipes with the real model, both data sets and the views."""
    for name in ("competitions", "datasets", "preprocess", "prompts"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy2(ROOT / "models.yaml", folder)
    write(
        folder / "models.local.yaml", {"lit": {"family": "open_clip", "weights": str(WEIGHTS), "preprocess": "plain"}}
    )
    for name, path in DATASETS.items():
        recipe = yaml.safe_load((folder / "datasets" / f"{name}.yaml").read_text())
        write(folder / "datasets" / f"{name}.yaml", recipe | {"path": str(path)})
    for number, views in enumerate(VIEWS.values()):
        write(
            folder / "preprocess" / f"views{number}.yaml", {"size": 224, "ops": [{"resize": "squash"}], **(views or {})}
        )


def measure(folder: Path, **recipe) -> dict[tuple, tuple[benchmark.Measurement, float | None]]:
    """{(data set, member, prompts, pooling): (cell, p against the best of its data set among these)}."""
    content = Benchmark.parse({"datasets": list(DATASETS), "models": ["lit"], **recipe}, "bench")
    with contextlib.redirect_stdout(io.StringIO()):
        cells = benchmark.measure(CompetitionTask(Project(folder), "demo", dtype_name="fp32"), content, "bench")
    pairs = zip(cells, benchmark.p_values(cells), strict=True)
    return {(cell.dataset, cell.member, cell.prompts, cell.pooling): (cell, p) for cell, p in pairs}


def choose(folder: Path, dataset: str) -> tuple[list[str], list[str]]:
    """(templates of the greedy choice, the best single one) of the general set, on the training split."""
    task = DatasetTask.of(
        CompetitionTask(Project(folder), "demo", dtype_name="fp32"), asked_split=dataset, asked_prompts="train"
    )
    scorer, of = prompt_subsets.SubsetScorer(task, "lit@plain", "embedding"), np.array(task.prompts.templates)
    templates = list(dict.fromkeys(task.prompts.templates))
    with contextlib.redirect_stdout(io.StringIO()):
        parts = [of == template for template in templates]
        steps = prompt_subsets.forward(scorer, parts, np.zeros(len(of), bool), sampled_truth(task))
    chosen = [templates[number] for number in prompt_subsets.shortest_best(steps)]
    return chosen, chosen[:1]


def value(cell: benchmark.Measurement, measure: str = "acc1") -> str:
    found = cell.metrics[measure]
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def table(what: str, lines: list[tuple[str, list]]) -> list[str]:
    """A row per line; its cells are (cell, p) of each data set."""
    head = [f"{name} {column}" for name in DATASETS for column in ("acc1", "macro F1", "ECE", "p")]
    rows = [
        [
            name,
            *(
                text
                for cell, p in found
                for text in (
                    value(cell),
                    f"{cell.metrics['macro_f1'].value:.3f}",
                    f"{cell.metrics['ece'].value:.3f}",
                    "best" if p is None else f"{p:.2g}",
                )
            ),
        ]
        for name, found in lines
    ]
    return [markdown([what, *head], rows), ""]


def prompts_table(folder: Path) -> list[str]:
    """Single templates, then every pooling of the general set's twelve."""
    cells = measure(folder, prompts=["plain", "photo", "general"], poolings=list(POOLINGS))
    names = [
        ("plain", "embedding", "`{}`"),
        ("photo", "embedding", "`a photo of a {}.`"),
        *(("general", pooling, f"general set, {pooling}") for pooling in POOLINGS),
    ]
    return table(
        "prompts, pooling",
        [
            (text, [cells[dataset, "lit@plain", prompts, pooling] for dataset in DATASETS])
            for prompts, pooling, text in names
        ],
    )


def views_table(folder: Path) -> list[str]:
    """Every way of looking at an image, with the name alone as the prompt."""
    members = [f"lit@views{number}" if views else "lit@plain" for number, views in enumerate(VIEWS.values())]
    cells = measure(folder, models=members, prompts=["plain"])
    return table(
        "views (`{}`)",
        [
            (text, [cells[dataset, member, "plain", "embedding"] for dataset in DATASETS])
            for text, member in zip(VIEWS, members, strict=True)
        ],
    )


def ranking_table(folder: Path) -> list[str]:
    """Templates chosen on the training split, measured on the test split."""
    sets: dict[str, dict[str, str]] = {"all twelve": {}, "greedy choice on train": {}, "best single one on train": {}}
    said = []
    for dataset in DATASETS:
        greedy, single = choose(folder, dataset)
        said.append(f"{dataset}: {', '.join(f'`{template}`' for template in greedy)}")
        for name, templates in (("greedy", greedy), ("single", single)):
            content = {"templates": templates, "classes": "any"}
            write(folder / "prompts" / f"{name}-{dataset}" / "_shared.yaml", content)
        sets["all twelve"][dataset] = "general"
        sets["greedy choice on train"][dataset] = f"greedy-{dataset}"
        sets["best single one on train"][dataset] = f"single-{dataset}"
    cells = {}
    for dataset in DATASETS:
        cells |= measure(folder, datasets=[dataset], prompts=[names[dataset] for names in sets.values()])
    lines = [
        (text, [cells[dataset, "lit@plain", names[dataset], "embedding"] for dataset in DATASETS])
        for text, names in sets.items()
    ]
    return [*table("templates", lines), f"Greedy choices: {'; '.join(said)}."]


def main() -> str:
    """Measure, and return the Markdown tables."""
    head = ["### Labelled data (bench/labelled.py)", ""]
    absent = [str(path.relative_to(ROOT.parent)) for path in (*DATASETS.values(), WEIGHTS) if not path.exists()]
    if absent:
        return "\n".join([*head, f"Not measured: {', '.join(absent)} not there, beside the project's folder."])
    # the checkpoint names its tokenizer by a path from the project's folder
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(ROOT):
        project(Path(name))
        parts = [*prompts_table(Path(name)), *views_table(Path(name)), *ranking_table(Path(name))]
    return "\n".join(
        [
            *head,
            "lit_mobilenet_minilm (26 M parameters) on the test splits of few_shot (503 vehicles, 8 classes, "
            "imbalanced) and intel_dev (900 scenes, 6 classes), fp32. Accuracy with 95 % bootstrap interval; p: exact "
            "McNemar test against the best of the same table and data set.",
            "",
            *parts,
        ]
    )


if __name__ == "__main__":
    print(main())
