"""Whether channels_last or torch.compile would pay: the image tower of ViT-B/32 and the demo's ResNet on this CPU."""

import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BATCH, ROUNDS = 32, 5


def main() -> str:
    """Measure, and return the Markdown table: time of the plain forward over that with the option."""
    import torch

    from pipeline.core._torchvision import allow_import

    allow_import()
    import open_clip

    torch.manual_seed(0)
    towers = {
        "ViT-B/32, 224 px": (open_clip.create_model("ViT-B-32").visual.eval(), 224),
        "demo-resnet, 64 px": (open_clip.create_model(f"local-dir:{ROOT}/demo/models/demo-resnet").visual.eval(), 64),
    }
    rows = []
    for name, (tower, size) in towers.items():
        for dtype in (torch.float32, torch.bfloat16):
            tower, pixels = tower.to(dtype), torch.randn(BATCH, 3, size, size, dtype=dtype)
            last = pixels.to(memory_format=torch.channels_last)
            ways = {
                "plain": (tower, pixels),
                "channels_last": (tower.to(memory_format=torch.channels_last), last),
                "compile": (torch.compile(tower), pixels),
            }
            taken = {way: [] for way in ways}
            with torch.inference_mode():
                for number in range(ROUNDS + 1):
                    for way, (module, batch) in ways.items():
                        began = time.perf_counter()
                        module(batch)
                        if number:  # the first pass compiles
                            taken[way].append(time.perf_counter() - began)
            median = {way: statistics.median(values) for way, values in taken.items()}
            gains = " | ".join(f"{median['plain'] / median[way]:.2f}" for way in ("channels_last", "compile"))
            rows.append(f"| {name} | {str(dtype).removeprefix('torch.')} | {gains} |")
    return "\n".join(
        [
            "### Options of the forward pass (bench/forward_options.py)",
            "",
            f"Speed against the plain forward pass on this CPU, batch {BATCH}, median of {ROUNDS} alternating runs.",
            "",
            "| image tower | dtype | channels_last | torch.compile |",
            "|---|---|---|---|",
            *rows,
        ]
    )


if __name__ == "__main__":
    print(main())
