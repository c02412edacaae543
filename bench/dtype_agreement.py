"""How often labels agree between dtypes, on real images and a real dual encoder; prints Markdown.

    python bench/dtype_agreement.py          (needs ../shared; some minutes on two cores)

Agreement: lit_mobilenet_minilm on labelled photographs, prompts `a photo of a {}.`, joint softmax, fp16 features
as they are cached; fp16 on every fifth image only, because CPUs emulate it. Speed: the image tower of ViT-B/32
with random weights, the best of some rounds.
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline import models
from pipeline.images.decoding import decode
from pipeline.images.listing import list_images
from pipeline.images.ops import compile_recipe
from pipeline.maths import zeroshot
from pipeline.models import open_clip
from pipeline.models._tower import DTYPES
from pipeline.recipes import ModelEntry, Preprocess

SHARED = Path("../shared")  # relative to the project, as the encoder's own configuration names its text tower
EVERY = {"fp32": 1, "bf16": 1, "fp16": 5}  # images taken
SETS = ("intel_dev/test", "few_shot/test")
CPU = torch.device("cpu")


def pixels_of(folder: Path) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """All images below <folder>/<class>/ as uint8 (N, 3, 224, 224), the class names, and the label of each."""
    images = list_images(f"{folder}/*/*.jpg", "bench")
    apply = compile_recipe(Preprocess(size=224, ops=["resize"]), "bench")
    classes = sorted({Path(name).parent.name for name in images.ids})
    labels = torch.tensor([classes.index(Path(name).parent.name) for name in images.ids])
    return torch.stack([torch.from_numpy(apply(decode(path))) for path in images.paths()]), classes, labels


def labels_of(entry: ModelEntry, dtype: str, pixels: torch.Tensor, classes: list[str]) -> torch.Tensor:
    """Predicted labels (N,)."""
    image = models.load("lit", entry, Path(), "image", CPU, dtype)
    text = models.load("lit", entry, Path(), "text", CPU, dtype)
    features = torch.cat([image.encode_image(batch).half() for batch in pixels.split(64)])
    prompts = text.encode_text([f"a photo of a {name}." for name in classes])
    return zeroshot.prompt_probs(features, prompts, text.logit_scale).argmax(1)


def vit_speed(dtype: str, batch: int = 16, rounds: int = 5) -> float:
    """Images per second of a ViT-B/32 image tower with random weights."""
    torch.manual_seed(0)
    model = open_clip.open_clip.create_model("ViT-B-32").eval()
    open_clip.lower(model, dtype)
    images = torch.rand(batch, 3, 224, 224).to(DTYPES[dtype])
    best = float("inf")
    with torch.inference_mode():
        for _ in range(rounds):
            began = time.perf_counter()
            model.encode_image(images)
            best = min(best, time.perf_counter() - began)
    return batch / best


def main() -> str:
    """Measure, and return the Markdown tables."""
    head = "### Labels and speed in other dtypes (bench/dtype_agreement.py)\n"
    if not SHARED.is_dir():
        return f"{head}\nNot measured: the labelled photographs and the real dual encoder ({SHARED}) are not here."
    entry = ModelEntry.parse(
        {"family": "open_clip", "weights": str(SHARED / "weights/lit_mobilenet_minilm"), "preprocess": "plain"}, "bench"
    )
    lines = [head, "| set | dtype | images | acc1 | same label as fp32 |", "|---|---|---|---|---|"]
    for name in SETS:
        pixels, classes, labels = pixels_of(SHARED / "data" / name)
        reference = labels_of(entry, "fp32", pixels, classes)
        for dtype in EVERY:
            some = slice(None, None, EVERY[dtype])
            predicted = labels_of(entry, dtype, pixels[some], classes)
            same = (predicted == reference[some]).float().mean()
            accuracy = (predicted == labels[some]).float().mean()
            lines.append(f"| {name} | {dtype} | {len(predicted)} | {accuracy:.4f} | {same:.2%} |")
    speeds = {dtype: vit_speed(dtype) for dtype in EVERY}
    lines += ["", "| ViT-B/32 image tower | images/s | against fp32 |", "|---|---|---|"]
    lines += [f"| {dtype} | {speed:.1f} | {speed / speeds['fp32']:.2f}x |" for dtype, speed in speeds.items()]
    return "\n".join([*lines, "", INT8])


INT8 = """Int8 is not there as a DTYPE: at least 1.5 x bf16 with at least 99.5 % equal labels was asked for, and nothing
gives both. Dynamic int8, the image tower of ViT-B/32 in batches of 64, median of 3 alternating passes (AVX-512 VNNI),
2026-11-22: fp32 14.6 images/s, bf16 27.4, torch's own 37.0 (1.35 x bf16; cosine to fp32 0.9994, of bf16 0.9999),
torchao 0.18 24.6 to 25.9 without compiling. Static int8, lit_mobilenet_minilm's image tower by OpenVINO 2026.4 and
nncf 3.4, calibrated on 300 images of the train folders, one thread, images per second of processor time, median of 5
alternating passes over 64 on a busy machine, 2026-11-22; labels compared with fp32's:

| way | images/s | x bf16 | intel_dev/test, same label | few_shot/test, same label |
|---|---|---|---|---|
| fp32 | 68.9 | 0.58 | 100.00% | 100.00% |
| bf16 | 119.7 | 1.00 | 98.22% | 99.01% |
| OpenVINO fp32 | 99.0 | 0.83 | 100.00% | 100.00% |
| OpenVINO bf16 | 183.8 | 1.54 | 98.11% | 99.01% |
| OpenVINO int8 | 288.1 | 2.41 | 96.89% | 96.02% |
| OpenVINO int8, its slower bias correction | 287.7 | 2.40 | 98.11% | 97.22% |

Fast enough, and 2 to 4 labels of 100 differ; of bf16 1 to 2, for this encoder is weak and has many close calls. How
OpenVINO's int8 does on a transformer's tower was not measured."""


if __name__ == "__main__":
    print(main())
