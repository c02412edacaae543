"""Train the demo's two tiny CLIPs on rendered scenes and store each as an open_clip checkpoint.

Run from the project root: python demo/train.py
"""

import argparse
import io
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from camera import jpeg, photograph
from captions import caption
from PIL import Image
from render import FIRST_SEED
from safetensors.torch import save_file
from scenes import CLASSES
from tqdm import tqdm

if torch.version.cuda is None:  # torchvision's wheel expects two operators that a CPU-only torch lacks
    operators = torch.library.Library("torchvision", "FRAGMENT")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402  it imports torchvision, which needs the operators above

HERE = Path(__file__).parent
SIZE = 64
MEAN, STD = (0.45, 0.45, 0.45), (0.27, 0.27, 0.27)
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}
VIT = {"image_size": SIZE, "patch_size": 8, "width": 96, "layers": 4, "head_width": 32}
RESNET = {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64}


@dataclass(frozen=True)
class Recipe:
    """How one model is trained. `sides` is the range of detail, in pixels, of the pictures it is shown."""

    vision: dict
    seed: int
    epochs: int
    learning_rate: float
    sides: tuple[int, int]
    colour: float


RECIPES = {
    "demo-vit": Recipe(VIT, seed=1, epochs=15, learning_rate=1e-3, sides=(34, 64), colour=0.15),
    "demo-resnet": Recipe(RESNET, seed=2, epochs=15, learning_rate=2e-3, sides=(34, 64), colour=0.25),
}


def main() -> None:
    """Train the chosen models side by side, one process and one thread each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--pictures", type=int, default=12_000, help="training pictures for each model")
    parser.add_argument("--out", type=Path, default=HERE / "models", help="folder for the checkpoints")
    parser.add_argument("--overwrite", action="store_true", help="replace checkpoints that exist")
    args = parser.parse_args()
    if unknown := set(args.models) - set(RECIPES):
        parser.error(f"no recipe for {', '.join(sorted(unknown))}: there are {', '.join(RECIPES)}")
    kept = [name for name in args.models if (args.out / name).exists()]
    if kept and not args.overwrite:
        parser.error(f"{', '.join(kept)} exist in {args.out}: give --overwrite, or another folder with --out")
    count = len(args.models)
    with ProcessPoolExecutor(count) as pool:
        reports = list(pool.map(build, args.models, [args.pictures] * count, [args.out] * count, range(count)))
    print("\n" * count + "\n".join(reports))


def build(name: str, count: int, out: Path, line: int) -> str:
    """Render, train and store one model; on one thread, so that the number of cores changes nothing."""
    torch.set_num_threads(1)
    started = time.time()
    recipe = RECIPES[name]
    pictures, facts = render(recipe.seed, count, line)
    model = train(recipe, pictures, facts, line)
    store(out / name, recipe, model)
    return f"{name}: {(time.time() - started) / 60:.1f} minutes, seed {recipe.seed}"


def draw(seed: int) -> tuple[np.ndarray, dict]:
    """One training picture at the models' size; a few are spoilt by JPEG, and their captions may say so."""
    image, facts = photograph(seed % len(CLASSES), seed)
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    if seed % 25 == 0:
        image = Image.open(io.BytesIO(jpeg(image, 8)))
        facts["words"] += ["jpeg corrupted"] * 2
    return np.asarray(image), facts


def render(seed: int, count: int, line: int) -> tuple[torch.Tensor, list[dict]]:
    """Pictures (N, 3, SIZE, SIZE) as bytes, and their facts; every model has a block of seeds to itself."""
    seeds = range(seed * 100_000, seed * 100_000 + count)
    assert seeds[-1] < FIRST_SEED
    drawn = [draw(s) for s in tqdm(seeds, desc=f"rendering, seed {seed}", unit="image", position=line)]
    pictures, facts = zip(*drawn, strict=True)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), list(facts)


def view(pictures: torch.Tensor, rng: np.random.Generator, recipe: Recipe) -> tuple[torch.Tensor, int]:
    """A batch as the model sees it: detail limited to a random side, colours shifted, normalised."""
    side = int(rng.integers(*recipe.sides, endpoint=True))
    x = pictures.float() / 255
    x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
    x = F.interpolate(x, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    gain = 1 + recipe.colour * torch.from_numpy(rng.uniform(-1, 1, (len(x), 3, 1, 1))).float()
    return (x * gain - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None], side


def train(recipe: Recipe, pictures: torch.Tensor, facts: list[dict], line: int, batch: int = 128):
    """Contrastive training: each picture must find its caption in the batch, and each caption its picture."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = open_clip.CLIP(64, recipe.vision, TEXT)
    tokenizer = open_clip.SimpleTokenizer(context_length=TEXT["context_length"])
    steps = recipe.epochs * (len(pictures) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, steps, pct_start=0.1)
    progress = tqdm(total=steps, desc=f"training, seed {recipe.seed}", unit="step", position=line)
    for _ in range(recipe.epochs):
        order = rng.permutation(len(pictures))
        for chosen in np.split(order[: len(order) // batch * batch], len(order) // batch):
            x, side = view(pictures[chosen], rng, recipe)
            texts = tokenizer([caption(rng, facts[i], blurred=side < 44) for i in chosen])
            image_features, text_features, scale = model(x, texts)
            logits = scale * image_features @ text_features.T
            target = torch.arange(batch)
            loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, np.log(100))
            progress.update()
            progress.set_postfix(loss=f"{loss.item():.3f}", scale=f"{scale.item():.1f}")
    return model.eval()


def store(folder: Path, recipe: Recipe, model: torch.nn.Module) -> None:
    """Write the folder that open_clip reads as `local-dir:`, the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {
        "model_cfg": {"embed_dim": 64, "vision_cfg": recipe.vision, "text_cfg": TEXT},
        "preprocess_cfg": preprocess,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    checkpoint = folder / "open_clip_model.safetensors"
    save_file({k: v.contiguous() for k, v in weights.items()}, checkpoint)
    checkpoint.chmod(0o644)  # save_file leaves it readable by its owner only


if __name__ == "__main__":
    main()
