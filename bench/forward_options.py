"""The bare forward pass of an ordinary process, and what is added here: kept memory, channels last, COMPILE=1."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ROUNDS = 2
# and images of a batch: 64, which the pipeline takes on a CPU, or fewer of what takes long; and dtypes
TOWERS = {
    "vit_base_patch32_clip_224": (64, "float32", "bfloat16"),
    "vit_large_patch14_clip_224": (8, "bfloat16"),
    "mobilenetv2_100": (64, "bfloat16"),
    "resnet50": (64, "float32", "bfloat16"),
    "convnext_base": (16, "bfloat16"),
}
WAYS = ("ordinary", "kept", "kept and last", "compiled")
PASSES = 2  # the first is not counted


def forward(name: str, dtype: str, way: str) -> None:
    """In a process of its own: print seconds of a forward pass and the peak of memory in MB, as JSON."""
    import resource

    from pipeline.core.memory import keep_freed

    if way != "ordinary":
        assert keep_freed()
    import torch

    from pipeline.core._torchvision import allow_import

    allow_import()
    import timm

    torch.manual_seed(0)
    tower = timm.create_model(name, num_classes=0).eval().to(getattr(torch, dtype))
    pixels = torch.randn(TOWERS[name][0], 3, 224, 224).to(getattr(torch, dtype))
    if way.endswith("last") or (way == "compiled" and "vit" not in name):
        tower, pixels = (one.to(memory_format=torch.channels_last) for one in (tower, pixels))
    run, taken = (lambda tower, pixels: tower(pixels)), []
    if way == "compiled":
        from pipeline.models import _compiled

        run = _compiled.program(tower, run, pixels.device, len(pixels))
    with torch.inference_mode():
        for _ in range(PASSES):
            began = time.perf_counter()
            run(tower, pixels)
            taken.append(time.perf_counter() - began)
    print(json.dumps([min(taken[1:]) / len(pixels), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))


def measured(name: str, dtype: str, way: str) -> tuple[float, int]:
    command = [sys.executable, __file__, name, dtype, way]
    return tuple(
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    )


def row(name: str, dtype: str) -> str:
    """Speed of each way over the ordinary process's, and its peak of memory over that one's."""
    is_vit = "vit" in name
    left = {"kept and last"} if is_vit else set()
    left |= {"compiled"} if dtype == "float32" else set()
    found = {way: [] for way in WAYS if way not in left}
    for _ in range(ROUNDS):
        for way in found:
            found[way].append(measured(name, dtype, way))
    seconds, peak = ({way: statistics.median(one[at] for one in found[way]) for way in found} for at in (0, 1))
    gains = [f"{seconds['ordinary'] / seconds[way]:.2f}" if way in found else "" for way in WAYS[1:]]
    memory = [f"{peak[way] / peak['ordinary']:.2f}" if way in found else "" for way in WAYS[1:]]
    speed = f"{1 / seconds['ordinary']:.1f}"
    asked = "" if dtype == "float32" else " (1.2)" if is_vit else " (2)"
    return f"| {name} | {dtype}{asked} | {speed} | {' | '.join(gains)} | {' | '.join(memory)} |"


def main() -> str:
    """Measure, and return the Markdown table."""
    return "\n".join(
        [
            "### The forward pass (bench/forward_options.py)",
            "",
            "Image towers at 224 px, batch 64 (8 of L/14, 16 of ConvNeXt-B), random weights, each way in a "
            f"process of its own, median of {ROUNDS} alternating processes: images a second of an ordinary process, "
            "and the speed of the others over its; in brackets what was asked for. `kept`: freed memory is kept "
            "(pipeline/core/memory.py); `last`: channels last as well, which towers of convolutions get; `compiled`: "
            "with COMPILE=1, after it is compiled. Then the peak of memory over the ordinary one's.",
            "",
            f"| tower | dtype | ordinary, img/s | {' | '.join(WAYS[1:])} | peak, {' | peak, '.join(WAYS[1:])} |",
            "|---|---|---|---|---|---|---|---|---|",
            *(row(name, dtype) for name, (_, *dtypes) in TOWERS.items() for dtype in dtypes),
            "",
            FINDINGS,
        ]
    )


FINDINGS = """Of the time of ViT-B/32, ViT-L/14 and ConvNeXt-B with kept memory, 82 to 85 % are matrix products
(torch's profiler, 2026-11-22), and those are as fast as they can be here: 104 billion multiply-adds a second on one
core in bf16 and 44 in fp32 (2 cores: 192 and 77), and Zen 4 does 32 or 16 a cycle. So 1.2 over
kept memory could be had only by doing all the rest in no time, and 2 not at all. Weights kept in oneDNN's own order
give equal values 1.05 to 1.11 times as fast, layer by layer, and are a second copy of them in memory: COMPILE=1 does
that."""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        forward(*sys.argv[1:])
    else:
        print(main())
