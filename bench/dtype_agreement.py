"""How often labels agree between dtypes, on real images and a real dual encoder; prints Markdown.

    python bench/dtype_agreement.py          (needs ../shared; about two minutes on two cores)

Agreement: lit_mobilenet_minilm on labelled photographs, prompts `a photo of a {}.`, joint softmax, fp16 features
as they are cached. Speed: the image tower of ViT-B/32 with random weights, and this small one.
"""

import time
from pathlib import Path

import torch

from pipeline import models, zeroshot
from pipeline.images import compile_recipe, decode, list_images
from pipeline.models import open_clip
from pipeline.recipes import ModelEntry, Preprocess

SHARED = Path("../shared")
DTYPES = ("fp32", "bf16", "fp16")
SETS = ("intel_dev/test", "few_shot/test")
CPU = torch.device("cpu")


def pixels_of(folder: Path) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """All images below <folder>/<class>/ as uint8 (N, 3, 224, 224), the class names, and the label of each."""
    images = list_images(f"{folder}/*/*.jpg", "bench")
    apply = compile_recipe(Preprocess(size=224, ops=["resize"]), "bench")
    classes = sorted({Path(name).parent.name for name in images.ids})
    labels = torch.tensor([classes.index(Path(name).parent.name) for name in images.ids])
    return torch.stack([torch.from_numpy(apply(decode(path))) for path in images.paths()]), classes, labels


def labels_of(entry: ModelEntry, dtype: str, pixels: torch.Tensor, classes: list[str]) -> tuple[torch.Tensor, float]:
    """Predicted labels (N,) and images per second."""
    image = models.load("lit", entry, Path(), "image", CPU, dtype)
    text = models.load("lit", entry, Path(), "text", CPU, dtype)
    image.encode_image(pixels[:64])
    began = time.perf_counter()
    features = torch.cat([image.encode_image(batch).half() for batch in pixels.split(64)])
    seconds = time.perf_counter() - began
    prompts = text.encode_text([f"a photo of a {name}." for name in classes])
    return zeroshot.prompt_probs(features, prompts, text.logit_scale).argmax(1), len(pixels) / seconds


def vit_speed(dtype: str, batch: int = 32, rounds: int = 5) -> float:
    """Images per second of a ViT-B/32 image tower with random weights."""
    torch.manual_seed(0)
    model = open_clip.open_clip.create_model("ViT-B-32").eval()
    open_clip.lower(model, dtype)
    images = torch.rand(batch, 3, 224, 224).to(open_clip.DTYPES[dtype])
    with torch.inference_mode():
        model.encode_image(images)
        began = time.perf_counter()
        for _ in range(rounds):
            model.encode_image(images)
    return batch * rounds / (time.perf_counter() - began)


def main() -> None:
    entry = ModelEntry.parse({"family": "open_clip", "weights": str(SHARED / "weights/lit_mobilenet_minilm"),
                              "preprocess": "plain"}, "bench")  # fmt: skip
    print("| set | dtype | acc1 | same label as fp32 | images/s |\n|---|---|---|---|---|")
    for name in SETS:
        pixels, classes, labels = pixels_of(SHARED / "data" / name)
        reference = None
        for dtype in DTYPES:
            predicted, speed = labels_of(entry, dtype, pixels, classes)
            reference = predicted if reference is None else reference
            same = int((predicted == reference).sum())
            accuracy = (predicted == labels).float().mean()
            print(f"| {name} | {dtype} | {accuracy:.4f} | {same} of {len(labels)} ({same / len(labels):.2%}) "
                  f"| {speed:.0f} |")  # fmt: skip
    speeds = {dtype: vit_speed(dtype) for dtype in DTYPES}
    print("\n| ViT-B/32 image tower | images/s | against fp32 |\n|---|---|---|")
    for dtype, speed in speeds.items():
        print(f"| {dtype} | {speed:.1f} | {speed / speeds['fp32']:.2f}x |")


if __name__ == "__main__":
    main()
