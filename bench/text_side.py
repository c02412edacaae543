"""Prompts per second beside the bare text tower, and what many prompts cost besides the tower.

1,000 classes x 80 templates are 80,000 prompts: the tower's time is measured on a slice of them, the rest of the
stage (cache, prompt set, no forward) on all.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from pipeline.chain import text as chain_text
from pipeline.chain.task import CompetitionTask

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CLASSES, TEMPLATES, SLICE = 1000, 80, 1  # SLICE templates of the 80 go through the tower
ROUNDS = 3
MODEL = "ViT-B-32"


def project(root: Path, templates: int) -> None:
    """A competition of 1,000 classes, and ViT-B/32 with random weights."""
    for kind in ("competitions", "preprocess", "ensembles", f"prompts/p{templates}"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    names = [f"class number {n}" for n in range(CLASSES)]
    classes = ", ".join(f'"{name}"' for name in names)
    competition = f"images: x\nclasses: [{classes}]\nprompts: p{templates}\n"
    (root / "competitions" / f"c{templates}.yaml").write_text(competition)
    shared = "".join(f'  - "a picture, kind {n}, of a {{}}."\n' for n in range(templates))
    (root / "prompts" / f"p{templates}" / "_shared.yaml").write_text(f"templates:\n{shared}")
    for n in range(CLASSES):
        (root / "prompts" / f"p{templates}" / f"class_number_{n}.yaml").write_text("")
    (root / "preprocess" / "p.yaml").write_text("size: 224\nops: [resize]\n")
    (root / "models.yaml").write_text("m:\n  family: open_clip\n  weights: model\n  preprocess: p\n")


def checkpoint(root: Path) -> None:
    import json

    from pipeline.core._torchvision import allow_import

    allow_import()
    import open_clip
    from safetensors.torch import save_file

    (root / "model").mkdir()
    config = {"model_cfg": open_clip.get_model_config(MODEL), "preprocess_cfg": {}}
    (root / "model" / "open_clip_config.json").write_text(json.dumps(config))
    save_file(open_clip.create_model(MODEL).state_dict(), root / "model" / "open_clip_model.safetensors")


def main() -> str:
    """Measure, and return the Markdown table."""
    import shutil

    import torch

    from pipeline import models
    from pipeline.recipes import Project

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        checkpoint(root)
        project(root, SLICE)
        project(root, TEMPLATES)
        task = CompetitionTask(Project(root), f"c{SLICE}")
        model = models.load("m", task.project.model("m"), root, "text", task.device, task.dtype)
        models.load = lambda *_: model  # loaded already, as for the bound
        prompts = task.prompts.prompts
        (tokens,) = model.tokenizer.encode(list(prompts)).values()
        bound, ours = [], []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            with torch.inference_mode():
                for part in tokens.split(task.batch):
                    model.module.encode_text(part)
            bound.append(time.perf_counter() - began)
            shutil.rmtree(root / "cache", ignore_errors=True)
            began = time.perf_counter()
            chain_text.of_prompts(task, "m", task.prompts)
            ours.append(time.perf_counter() - began)
        rest = _without_the_tower(CompetitionTask(Project(root), f"c{TEMPLATES}"), model)
    ratio = statistics.median(ours) / statistics.median(bound)
    per_prompt = statistics.median(bound) / len(prompts)
    return "\n".join(
        [
            "### Text side (bench/text_side.py)",
            "",
            f"{MODEL}, random weights, {task.dtype}; median of {ROUNDS} alternating runs. Target: "
            "at most 1.1 x the bound.",
            "",
            "| what | prompts | seconds | x bare text tower |",
            "|---|---|---|---|",
            f"| bare text tower on tokens in memory | {len(prompts):,} | {statistics.median(bound):.1f} | 1 |",
            f"| the stage, with tokenising and caching | {len(prompts):,} | {statistics.median(ours):.1f} | "
            f"{ratio:.2f} |",
            f"| prompt set, tokenising and caching alone | {CLASSES * TEMPLATES:,} | {rest:.1f} | "
            f"{rest / (per_prompt * CLASSES * TEMPLATES):.3f} |",
        ]
    )


def _without_the_tower(task, model) -> float:
    """Seconds of the stage for all 80,000 prompts, the forward pass of the tower replaced by zeros of its shape."""
    import torch

    width = model.encode_text(["x"]).shape[1]
    model.module.encode_text = lambda tokens, **_: torch.ones(len(tokens), width)
    began = time.perf_counter()
    chain_text.of_prompts(task, "m", task.prompts)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(main())
