"""How many images a second reach a tower that costs nothing: from 224-pixel JPEGs, and from the pixel cache."""

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SCENE = ROOT.parent / "shared" / "data" / "scene" / "images"
IMAGES, SIZE, ROUNDS = 16384, 224, 3
DIFFERENT = 2048  # images; the others are the same again
ALONE = 4000  # images that one process decodes
COMPRESSED = 256  # images
PINS = ("lz4==4.4.5", "zstandard==0.25.0")


def project(root: Path) -> None:
    """A competition of JPEGs of the size that a model takes: photographs, or the scenes of the demo."""
    for kind in ("competitions", "preprocess", "prompts/x", "ensembles", "weights", "images"):
        (root / kind).mkdir(parents=True)
    (root / "competitions" / "x.yaml").write_text("images: images\nclasses: [a, b]\n")
    (root / "preprocess" / "p.yaml").write_text(f"size: {SIZE}\nops: [resize: squash]\n")
    (root / "models.yaml").write_text("m:\n  family: open_clip\n  weights: weights\n  preprocess: p\n")
    for number, content in enumerate(map(jpeg, range(DIFFERENT))):
        for again in range(number, IMAGES, DIFFERENT):
            (root / "images" / f"{again}.jpg").write_bytes(content)


def picture(number: int):
    """A photograph, or a scene of the demo."""
    from PIL import Image

    sources = sorted((SCENE if SCENE.is_dir() else ROOT / "demo" / "images").glob("*.jpg"))
    with Image.open(sources[number % len(sources)]) as image:
        return image.convert("RGB").resize((SIZE, SIZE))


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "JPEG", quality=90)
    return file.getvalue()


def rate(images: int, work) -> tuple[float, float]:
    """Images a second, and ms of this thread for each."""
    began, busy = time.perf_counter(), time.thread_time()
    work()
    return images / (time.perf_counter() - began), 1000 * (time.thread_time() - busy) / images


def decoding(root: str) -> tuple[float, float]:
    """The same of a process with one thread that only decodes."""
    from pipeline.core.memory import keep_freed

    keep_freed()
    from pipeline.images.decoding import decode
    from pipeline.images.ops import compile_recipe
    from pipeline.recipes import Project

    apply = compile_recipe(Project(Path(root)).preprocess("p"), "p")
    files = sorted((Path(root) / "images").iterdir())[:ALONE]
    return rate(len(files), lambda: [apply(decode(file)) for file in files])


def child(root: str) -> dict:
    """(images a second, ms of the main thread for each) of the stage's ways."""
    from pipeline.core.memory import keep_freed

    keep_freed()
    import torch

    from pipeline import models
    from pipeline.chain import canary, features, feeding, preprocess
    from pipeline.chain.stage import make
    from pipeline.chain.task import CompetitionTask
    from pipeline.recipes import Project

    class Free:
        image_size, resize_mode, device = SIZE, None, torch.device("cpu")

        def encode_image(self, pixels):
            return torch.ones(len(pixels), 512)

        def batch_size(self, limit):
            return limit

    models.load = lambda *_: Free()
    features.checkpoint = lambda *_: {"free": time.time_ns()}  # another one each time
    features.check_unchanged = features.check_recipe = canary.check = lambda *_: None
    task = CompetitionTask(Project(root), "x", dtype_name="fp32")
    task.images_digest()

    def staged() -> None:
        make(features.stage(task, task.project.member("m@p")))

    def way(processes: bool, kept: bool) -> tuple[float, float]:
        shutil.rmtree(task.cache / "images", ignore_errors=True)
        feeding.in_processes = lambda *_: processes
        feeding.Feed._keep = keep if kept else lambda _, pixels, first, last, groups: [g.result() for g in groups][:0]
        return rate(IMAGES, staged)

    rule, keep, found = feeding.in_processes, feeding.Feed._keep, {}
    for kept in (False, True):
        for processes in (False, True):
            found[f"{'processes' if processes else 'threads'}{', kept' if kept else ''}"] = way(processes, kept)
    assert not preprocess.stage(task, "p").todo
    feeding.in_processes = rule
    return found | {"cached": rate(IMAGES, staged), "threads_used": task.threads}


def fastest(work, contents: list[bytes]) -> float:
    """Seconds for each."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for content in contents:
            work(content)
        found.append((time.perf_counter() - began) / len(contents))
    return min(found)


def compressed(folder: str) -> list[str]:
    """Rows of a table: pixels compressed without loss."""
    import numpy as np

    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *PINS], check=True)
    sys.path.append(folder)
    import lz4.block
    import zstandard

    pixels = [np.ascontiguousarray(np.asarray(picture(n)).transpose(2, 0, 1)) for n in range(COMPRESSED)]
    shape, raw = pixels[0].shape, [one.tobytes() for one in pixels]

    def checked(content: bytes) -> bytearray:
        zlib.crc32(content)
        return bytearray(content)

    def less_the_left(content: bytes) -> bytes:
        found = np.frombuffer(content, np.uint8).reshape(shape).copy()
        found[:, :, 1:] -= found[:, :, :-1].copy()
        return found.tobytes()

    def and_back(content: bytes) -> bytes:
        return np.cumsum(np.frombuffer(content, np.uint8).reshape(shape), axis=2, dtype=np.uint8).tobytes()

    fast, small = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    ways = {
        "as they are": (checked, checked),
        "lz4": (lz4.block.compress, lz4.block.decompress),
        "zstd 1": (fast.compress, small.decompress),
        "zstd 1 of differences to the left": (
            lambda content: fast.compress(less_the_left(content)),
            lambda content: and_back(small.decompress(content)),
        ),
        "zlib 1": (lambda content: zlib.compress(content, 1), zlib.decompress),
    }
    rows, plain = [], 0.0
    for name, (pack, unpack) in ways.items():
        packed = [pack(one) for one in raw]
        assert [unpack(one) for one in packed] == raw
        write, read = fastest(pack, raw), fastest(unpack, packed)
        plain, share = plain or read, sum(map(len, packed)) / sum(map(len, raw))
        pays = f"{(1 - share) * len(raw[0]) / max(read - plain, 1e-9) / 1e6:,.0f}" if share < 1 else ""
        rows.append(f"| {name} | {share:.2f} | {1000 * write:.3f} | {1000 * read:.3f} | {pays} |")
    return rows


def started(way: str, root: str) -> subprocess.Popen:
    command = [sys.executable, __file__, way, root]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen):
    """What a process found."""
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(said)
    return json.loads(said.splitlines()[-1])


def one_round(root: str) -> dict:
    """All ways, by name; `together` is of as many processes that only decode as the stage has threads."""
    found = {"alone": ended(started("--decoding", root))} | ended(started("--child", root))
    together = [started("--decoding", root) for _ in range(found["threads_used"])]
    rates = [ended(process) for process in together]
    return found | {"together": (sum(rate for rate, _ in rates), rates[0][1])}


def main() -> str:
    """Measure, and return the Markdown table."""
    runs = []
    with tempfile.TemporaryDirectory() as name:
        project(Path(name))
        for _ in range(ROUNDS):
            runs.append(one_round(name))
            print(runs[-1], flush=True)
    threads = runs[0]["threads_used"]

    def row(words: str, way: str) -> str:
        rate, busy = (statistics.median(run[way][n] for run in runs) for n in (0, 1))
        alone = statistics.median(run[way][0] / (threads * run["alone"][0]) for run in runs)
        together = statistics.median(run[way][0] / run["together"][0] for run in runs)
        return f"| {words} | {rate:,.0f} | {together:.2f} | {alone:.2f} | {busy:.3f} |"

    with tempfile.TemporaryDirectory() as folder:
        table = compressed(folder)
    return "\n".join(
        [
            "### Feeding a tower (bench/feeding.py)",
            "",
            f"{IMAGES:,} JPEGs of {SIZE} x {SIZE} pixels through the stage that encodes images, the tower costing "
            f"nothing; median of {ROUNDS} runs, the start of processes included. Targets: 12,000 images a second from "
            "the cache; from JPEGs 0.9 of what as many processes decode that do nothing else.",
            "",
            f"| from | images/s | of {threads} that only decode | of {threads} x one alone | of the main thread, ms an "
            "image |",
            "|---|---|---|---|---|",
            row("JPEGs, one process that only decodes", "alone"),
            row(f"JPEGs, {threads} processes that only decode, at once", "together"),
            row(f"JPEGs, {threads} threads, nothing written", "threads"),
            row(f"JPEGs, {threads} processes, nothing written", "processes"),
            row(f"JPEGs, {threads} threads, pixels cached", "threads, kept"),
            row(f"JPEGs, {threads} processes, pixels cached", "processes, kept"),
            row("the pixel cache", "cached"),
            "",
            "Pixels compressed without loss, in memory, by one thread; the last column is how slow a disk must be for "
            "reading to gain from it.",
            "",
            "| pixels | of their bytes | to write, ms an image | to read | pays below, MB/s |",
            "|---|---|---|---|---|",
            *table,
            "",
            FINDINGS,
        ]
    )


FINDINGS = """Threads take turns at what Pillow does in Python; processes do not, and are used where 4,096 or more small
images are to be decoded (docs/images.md), 32 at a time: with 8 they gave 3,900 images a second where 32 gave 5,000.
Two processes on this virtual machine decode 1.7 to 1.95 times what one does alone, not twice, so both ratios are told.
With pixels cached, writing limits both ways: checksum and copy into
the page cache take 0.08 ms an image, and 0.4 ms on this virtual machine where the page cache grows into memory that
its host has not given it yet (2026-11-22: 9 us for each 4 KiB, 0.9 us where the memory was used before).
Lossless compression saves disk, not time: writing takes seven times as long or more, and reading gains only from a
disk that is slower than the last column says. So pixels stay as they are, and the files of before stay valid; each
further model of the same recipe has them without decoding.
As many decoders as cores is right beside a tower too (MobileNetV2 bf16 on both cores, 2026-11-22): photographs of 12
megapixels 8.7 images a second with one decoder, 14.2 with two, 13.5 with three; small JPEGs 136 to 149 with any. A
batch of 64 is within 7 % of the best of 8 to 256 for ViT-B/32, ResNet-50 and MobileNetV2 (on a busy machine)."""


if __name__ == "__main__":
    ways = {"--child": child, "--decoding": decoding}
    if sys.argv[1:]:
        print(json.dumps(ways[sys.argv[1]](sys.argv[2])))
    else:
        print(main())
