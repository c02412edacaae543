"""What people run today, timed in a process of its own: `python competitors.py <way> <model folder> <images> <dtype>`.

Prints seconds of a pass over the images, and those of one more for each line it is given, without imports and loading.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.core._torchvision import allow_import

allow_import()
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

CLASSES = ["Buildings", "Forests", "Glacier", "Mountains", "Sea", "Street"]
TEMPLATE = "a photo of a {}"
ANSWER = "seconds "


class Files(Dataset):
    """(image, label) of files; the label is not used by anyone here."""

    def __init__(self, files, transform):
        self.files, self.transform = files, transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, number):
        return self.transform(Image.open(self.files[number]).convert("RGB")), 0


def open_clip_model(folder: str):
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


def notebook(folder: str, dtype: str):
    """Seed 004's loop: DataLoader, encode_image under autocast, softmax over the prompts."""
    model, transform, tokenizer = open_clip_model(folder)
    prompts = [TEMPLATE.format(name) for name in CLASSES]  # the seed's 312 take long, and are not measured
    text = model.encode_text(tokenizer(prompts), normalize=True).detach().repeat_interleave(52, dim=0)

    def run(files: list[Path]) -> None:
        loader, probs = DataLoader(Files(files, transform), batch_size=32, num_workers=2), []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            for x, _ in loader:
                features = model.encode_image(x)
                features /= features.norm(dim=-1, keepdim=True)
                probs += (100.0 * features @ text.T.to(features.dtype)).softmax(dim=-1)

    return run


def transformers_pipeline(folder: str, dtype: str):
    """transformers' zero-shot-image-classification pipeline with six candidate labels."""
    from transformers import pipeline

    classifier = pipeline(
        "zero-shot-image-classification",
        model=f"{folder}-transformers",
        dtype=torch.bfloat16 if dtype == "bf16" else torch.float32,
        batch_size=32,
    )

    def run(files: list[Path]) -> None:
        classifier([str(file) for file in files], candidate_labels=CLASSES, hypothesis_template=TEMPLATE)

    return run


def clip_benchmark(folder: str, dtype: str):
    """CLIP_benchmark's zero-shot classification."""
    from clip_benchmark.metrics import zeroshot_classification

    model, transform, tokenizer = open_clip_model(folder)
    amp = dtype == "bf16"
    templates = ["a photo of a {c}", "a blurry photo of a {c}"]
    classifier = zeroshot_classification.zero_shot_classifier(model, tokenizer, CLASSES, templates, "cpu", amp=amp)

    def run(files: list[Path]) -> None:
        loader = DataLoader(Files(files, transform), batch_size=64, num_workers=2)
        zeroshot_classification.run_classification(model, classifier, loader, "cpu", amp=amp)

    return run


WAYS = {"notebook": notebook, "transformers": transformers_pipeline, "clip_benchmark": clip_benchmark}


def passes(run: Callable[[], object]) -> Iterator[float]:
    """Seconds of one pass, and of one more for each line on the standard input."""
    while True:
        began = time.perf_counter()
        run()
        yield time.perf_counter() - began
        if not sys.stdin.readline():
            return


def main() -> None:
    way, folder, images, dtype = sys.argv[1:]
    files = sorted(Path(images).glob("*.jpg"))
    run = WAYS[way](folder, dtype)
    for seconds in passes(lambda: run(files)):
        print(f"{ANSWER}{seconds}", flush=True)


if __name__ == "__main__":
    main()
