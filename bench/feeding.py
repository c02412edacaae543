"""How many images a second reach a tower that costs nothing: from 224-pixel JPEGs, and from the pixel cache."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SCENE = ROOT.parent / "shared" / "data" / "scene" / "images"
IMAGES, SIZE, ROUNDS = 6144, 224, 3
ALONE = 1500  # images that one thread decodes alone


def project(root: Path) -> None:
    """A competition of JPEGs of the size that a model takes: photographs, or the scenes of the demo."""
    from PIL import Image

    for kind in ("competitions", "preprocess", "prompts/x", "ensembles", "weights", "images"):
        (root / kind).mkdir(parents=True)
    (root / "competitions" / "x.yaml").write_text("images: images\nclasses: [a, b]\n")
    (root / "preprocess" / "p.yaml").write_text(f"size: {SIZE}\nops: [resize: squash]\n")
    (root / "models.yaml").write_text("m:\n  family: open_clip\n  weights: weights\n  preprocess: p\n")
    sources = sorted((SCENE if SCENE.is_dir() else ROOT / "demo" / "images").glob("*.jpg"))
    for number in range(IMAGES):
        with Image.open(sources[number % len(sources)]) as image:
            image.convert("RGB").resize((SIZE, SIZE)).save(root / "images" / f"{number}.jpg", quality=90)


def child(root: str) -> dict:
    """Images a second : one thread that only decodes, the stage from JPEGs, the stage from the cache."""
    from pipeline.core.memory import keep_freed

    keep_freed()
    import torch

    from pipeline import models
    from pipeline.chain import canary, damage, features, preprocess
    from pipeline.chain.stage import make
    from pipeline.chain.task import CompetitionTask
    from pipeline.images.ops import compile_recipe
    from pipeline.recipes import Project

    class Free:
        image_size, resize_mode = SIZE, None

        def encode_image(self, pixels):
            return torch.ones(len(pixels), 512)

        def batch_size(self, limit):
            return limit

    models.load = lambda *_: Free()
    features.checkpoint = lambda *_: {"free": time.time_ns()}  # another one each time
    features.check_unchanged = features.check_recipe = canary.check = lambda *_: None
    task = CompetitionTask(Project(root), "x", dtype_name="fp32")
    task.images_digest()
    apply = compile_recipe(task.project.preprocess("p"), "p")

    def alone() -> None:
        for row in range(ALONE):
            apply(damage.picture(task, row, None).image)

    def staged() -> None:
        make(features.stage(task, task.project.member("m@p")))

    def rate(images: int, work) -> tuple[float, float]:
        began, busy = time.perf_counter(), time.thread_time()
        work()
        return images / (time.perf_counter() - began), 1000 * (time.thread_time() - busy) / images

    found = {"alone": rate(ALONE, alone), "decoded": rate(IMAGES, staged)}
    assert not preprocess.stage(task, "p").todo
    return found | {"cached": rate(IMAGES, staged), "threads": task.threads}


def main() -> str:
    """Measure, and return the Markdown table."""
    runs = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            project(Path(name))
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                [sys.executable, __file__, "--child", name], env=environment, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(runs[-1], flush=True)

    def of(way: str, what: int = 0) -> float:
        return statistics.median(run[way][what] for run in runs)

    share = statistics.median(run["decoded"][0] / (run["threads"] * run["alone"][0]) for run in runs)
    return "\n".join(
        [
            "### Feeding a tower (bench/feeding.py)",
            "",
            f"{IMAGES:,} JPEGs of {SIZE} x {SIZE} pixels through the stage that encodes images, the tower costing "
            f"nothing; median of {ROUNDS} runs. Targets: 12,000 images a second from the cache; from JPEGs 0.9 of "
            "threads x what one thread decodes alone.",
            "",
            "| from | images/s | of the main thread, ms an image |",
            "|---|---|---|",
            f"| JPEGs, one thread that only decodes | {of('alone'):,.0f} | {of('alone', 1):.3f} |",
            f"| JPEGs, {runs[0]['threads']} threads, pixels cached: {share:.2f} of the threads x that | "
            f"{of('decoded'):,.0f} | {of('decoded', 1):.3f} |",
            f"| the pixel cache | {of('cached'):,.0f} | {of('cached', 1):.3f} |",
            "",
            MISSES,
        ]
    )


MISSES = """The target from JPEGs is missed: threads take turns at what Pillow does in Python, and writing 150 KB of
pixels an image takes as long as decoding a small JPEG. On 2026-11-22 the same threads reached 1,700 to
1,900 images a second without writing."""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2])))
    else:
        print(main())
