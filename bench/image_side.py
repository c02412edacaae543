"""Images per second beside what people use today and beside the bare forward pass, on random weights.

`python bench/image_side.py --child <ours|compiled|draft|bound> <model folder> <images> <dtype>` times one way in a
process of its own: a pass for each line it is given.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from competitors import ANSWER, passes

from pipeline.chain import checkpoints
from pipeline.chain import features as chain_features

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SCENE = ROOT.parent / "shared" / "data" / "scene" / "images"
MODELS = ("ViT-B-32", "ViT-L-14", "RN50")
PHOTOS = 32
ROUNDS = 3
SAID = {"ours": "", "compiled": ", `COMPILE=1`", "draft": ", `draft: true`"}
OWN = ("ours", "compiled", "draft", "bound")
COMPETITORS = ("notebook", "transformers", "clip_benchmark")
CASES = (  # model, images, dtype, ways
    ("ViT-B-32", "small-128", "bf16", ("ours", "compiled", "bound", *COMPETITORS)),
    ("ViT-B-32", "small-64", "fp32", ("ours", "bound", *COMPETITORS)),
    ("ViT-L-14", "small-16", "bf16", ("ours", "bound", "notebook")),
    ("RN50", "small-128", "bf16", ("ours", "compiled", "bound", "notebook", "clip_benchmark")),
    ("ViT-B-32", "photos", "bf16", ("ours", "draft", "bound", *COMPETITORS)),
)
NOTES = """All compute in the same dtype, so the matrix products are the same: what is won is freed memory that is kept,
the order of channels in towers of convolutions, and decoding meanwhile. 12-megapixel photographs are bound by decoding,
which leaves the forward pass idle; `draft: true` helps by as much as libjpeg can skip. Repeated runs differ by 10 to
15 %: a ratio within that of 1 is no difference."""
PINS = ("clip-benchmark==1.6.2",)  # brings open_clip and transformers; the rest is as in pyproject.toml


def prepare(folder: Path) -> None:
    """Checkpoints with random weights in open_clip's and transformers' layouts, and the images."""
    from pipeline.core._torchvision import allow_import

    allow_import()
    import open_clip
    import torch
    from safetensors.torch import save_file

    for name in MODELS:
        config = open_clip.get_model_config(name)
        (folder / name).mkdir()
        (folder / name / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        torch.manual_seed(0)
        state = open_clip.create_model(name).state_dict()
        save_file(state, folder / name / "open_clip_model.safetensors")
        if name == "ViT-B-32":
            _transformers_copy(config, folder / f"{name}-transformers")
    _images(folder)


def _transformers_copy(config: dict, folder: Path) -> None:
    """The same architecture as a transformers CLIPModel, with its processor."""
    import gzip

    import open_clip.tokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    text, vision = config["text_cfg"], config["vision_cfg"]
    clip = CLIPConfig(
        projection_dim=config["embed_dim"],
        text_config={
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "hidden_act": "gelu",
            "num_attention_heads": text["heads"],
            "num_hidden_layers": text["layers"],
        },
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": 4 * vision["width"],
            "hidden_act": "gelu",
            "num_attention_heads": vision["width"] // 64,
            "num_hidden_layers": vision["layers"],
            "patch_size": vision["patch_size"],
            "image_size": vision["image_size"],
        },
    )
    CLIPModel(clip).save_pretrained(folder)
    ours = open_clip.tokenizer.SimpleTokenizer()
    own_words = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {own_words.get(token, token): number for token, number in ours.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    with gzip.open(open_clip.tokenizer.default_bpe()) as file:
        lines = file.read().decode().split("\n")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines[1 : 49152 - 256 - 2 + 1]]))
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)


def _images(folder: Path) -> None:
    """`small-N`: the competition's photographs (or the demo's scenes at their size); `photos`: 12 megapixels each."""
    from PIL import Image

    sources = [SCENE / f"{n}.jpg" for n in range(512)] if SCENE.is_dir() else []
    sources = sources or [ROOT / "demo" / "images" / f"{n}.jpg" for n in range(512)]
    for small in {images for _, images, *_ in CASES if images != "photos"}:
        (folder / small).mkdir()
        for number in range(int(small.removeprefix("small-"))):
            with Image.open(sources[number]) as image:
                image.convert("RGB").resize((224, 224)).save(folder / small / f"{number:03d}.jpg", quality=90)
    (folder / "photos").mkdir()
    for number in range(PHOTOS):
        with Image.open(sources[number]) as image:
            big = image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
        big = Image.blend(big, Image.effect_noise(big.size, 40).convert("RGB"), 0.1)  # or it compresses to nothing
        big.save(folder / "photos" / f"{number:03d}.jpg", quality=90)


def child(way: str, model_folder: str, images: str, dtype: str) -> Iterator[float]:
    """Seconds of one pass after the other of our infer stage, or of the bare forward pass on a tensor in memory."""
    from pipeline.core.memory import keep_freed

    if way != "bound":
        keep_freed()  # as every verb that computes does; the bare forward pass is an ordinary process's

    from pipeline import models
    from pipeline.chain import canary
    from pipeline.chain.task import CompetitionTask
    from pipeline.recipes import Project

    with tempfile.TemporaryDirectory() as name:
        root, draft = Path(name), way == "draft"
        for kind in ("competitions", "preprocess", "prompts/x", "ensembles"):
            (root / kind).mkdir(parents=True)
        (root / "competitions" / "x.yaml").write_text(f"images: {images}\nclasses: [a, b]\n")
        recipe = f"size: 224\nops:\n  - resize: shortest\n  - center_crop\n{'draft: true' if draft else ''}\n"
        (root / "preprocess" / "p.yaml").write_text(recipe)
        entry = "m:\n  family: open_clip\n  weights: {}\n  preprocess: p\n"
        (root / "models.yaml").write_text(entry.format(model_folder))
        task = CompetitionTask(Project(root), "x", dtype_name=dtype)
        model = models.load("m", task.project.model("m"), root, "image", task.device, dtype)
        if way == "bound":
            yield from passes(_bound(model, dtype, len(task.images.ids), task.batch))
            return
        if way == "compiled":
            with contextlib.redirect_stdout(sys.stderr):
                canary.compiled("m", model, task.batch)
        models.load = lambda *_: model  # loaded already, as for the others
        checkpoints.identity(task, "m")  # its digest, read once in a file's life, belongs to loading
        yield from passes(lambda: _ours(task))


def _ours(task) -> None:
    shutil.rmtree(task.project.root / "cache" / "x", ignore_errors=True)  # features of the pass before
    chain_features.of_member(task, task.project.member("m@p"))


def _bound(model, dtype: str, count: int, batch: int) -> Callable[[], None]:
    import torch

    pixels = torch.randn(count, 3, 224, 224).to({"bf16": torch.bfloat16, "fp32": torch.float32}[dtype])
    model.module.to(memory_format=torch.contiguous_format)  # as a model comes

    def run() -> None:
        with torch.inference_mode():
            for part in pixels.split(batch):
                model.module.encode_image(part)

    return run


@contextlib.contextmanager
def timer(python: str, way: str, *arguments: str) -> Iterator[Callable[[], float]]:
    """A function that has a process of its own, ready and warm, do one pass, and gives its seconds."""
    script = ["image_side.py", "--child"] if way in OWN else ["competitors.py"]
    command = [python, str(ROOT / "bench" / script[0]), *script[1:], way, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(command, stderr=errors, **pipes) as process:

        def once() -> float:
            for line in process.stdout:
                if line.startswith(ANSWER):
                    return float(line.removeprefix(ANSWER))
            errors.seek(0)
            raise SystemExit(f"{command}: {errors.read()[-4000:]}")

        once()  # the first pass warms up

        def ask() -> float:
            print(file=process.stdin, flush=True)
            return once()

        yield ask
        process.stdin.close()


def competitors_python(folder: Path) -> str:
    """An environment of its own with the competitors from PyPI."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [
        pin for pin in pins if pin.startswith(("torch==", "torchvision==", "open_clip", "transformers==", "timm"))
    ]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted, *PINS], check=True, stderr=subprocess.DEVNULL)
    return str(python)


def rates(folder: Path, python: str, model: str, images: str, dtype: str, ways: tuple[str, ...]) -> dict[str, float]:
    """Images per second of each way: medians of alternating passes, each way's in a process of its own."""
    count, taken = len(list((folder / images).glob("*.jpg"))), {way: [] for way in ways}
    with contextlib.ExitStack() as running:
        own = {way: sys.executable if way in OWN else python for way in ways}
        arguments = (str(folder / model), str(folder / images), dtype)
        passes_of = {way: running.enter_context(timer(own[way], way, *arguments)) for way in ways}
        for _ in range(ROUNDS):
            for way in ways:
                taken[way].append(passes_of[way]())
    return {way: count / statistics.median(seconds) for way, seconds in taken.items()}


def as_they_are(rate: dict[str, dict[str, float]]) -> str:
    """Our default dtype on a CPU with native bf16 against the competitors' own: only CLIP_benchmark uses autocast."""
    theirs = {"notebook": "fp32", "transformers": "fp32", "clip_benchmark": "bf16"}
    ratios = [f"{rate['bf16']['ours'] / rate[dtype][way]:.2f} x {way} ({dtype})" for way, dtype in theirs.items()]
    return f"ViT-B-32, each with its default dtype on this CPU: ours (bf16) {', '.join(ratios)}."


def draft_effect(folder: Path) -> str:
    """How little `draft: true` changes features: the photographs through a real small encoder."""
    import torch

    from pipeline import models
    from pipeline.images.decoding import decode
    from pipeline.images.ops import compile_recipe
    from pipeline.recipes import Project

    entry = Project(ROOT).model("demo-vit")
    model = models.load("demo-vit", entry, ROOT, "image", torch.device("cpu"), "fp32")
    recipe = Project(ROOT).preprocess("demo")
    apply = compile_recipe(recipe, "demo")
    files = sorted((folder / "photos").glob("*.jpg"))
    whole, drafted = (
        model.encode_image(torch.stack([torch.from_numpy(apply(decode(file, size))) for file in files]))
        for size in (None, 2 * recipe.size)
    )
    cosine = (whole * drafted).sum(dim=1)
    return (
        f"`draft: true` against whole decoding, features of demo-vit: cosine {cosine.mean():.4f} on average, "
        f"{cosine.min():.4f} at least."
    )


def main() -> str:
    """Measure, and return the Markdown tables."""
    lines = [
        "### Image side (bench/image_side.py)",
        "",
        f"Random weights, CPU, batch 64; median of {ROUNDS} alternating passes after a first one, each way's in a "
        "process of its own, without imports, loading (which includes a checkpoint's digest) and compiling. "
        "(a) seed 004's notebook loop under autocast, (b) transformers' pipeline, (c) CLIP_benchmark, in an "
        "environment of their own, in the same dtype; (d) the bare forward pass of an ordinary process on a tensor "
        "in memory. Targets for small images in bf16, (a) to (d): 1.2 of ViT-B-32 and ViT-L-14, 2 of RN50.",
        "",
        "| model, images | dtype | ours, images/s | x (d) | x (a) | x (b) | x (c) |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        python, small = competitors_python(folder), {}
        for model, images, dtype, ways in CASES:
            rate = rates(folder, python, model, images, dtype, ways)
            small |= {dtype: rate} if model == "ViT-B-32" and images != "photos" else {}
            for way in [way for way in SAID if way in rate]:
                what = (", photographs 4000x3000" if images == "photos" else "") + SAID[way]
                ratios = [f"{rate[way] / rate[o]:.2f}" if o in rate else "" for o in ("bound", *COMPETITORS)]
                lines.append(f"| {model}{what} | {dtype} | {rate[way]:.1f} | {' | '.join(ratios)} |")
                print(lines[-1], flush=True)
        lines += ["", as_they_are(small), "", NOTES, "", draft_effect(folder)]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        for seconds in child(*sys.argv[2:]):
            print(f"{ANSWER}{seconds}", flush=True)
    else:
        print(main())
