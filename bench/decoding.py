"""Photographs a second, decoded and resized: the pipeline's way, Pillow as everybody writes it, and simplejpeg."""

import io
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SCENE = ROOT.parent / "shared" / "data" / "scene" / "images"
SIZE, THREADS, ROUNDS = 224, 2, 5
KINDS = {"224 x 224": ((224, 224), 1000), "4000 x 3000": ((4000, 3000), 8)}
PIN = "simplejpeg==1.9.0"


def photographs(size: tuple[int, int], count: int) -> list[bytes]:
    """JPEGs of photographs, or of the demo's scenes, with noise so that large ones do not compress to nothing."""
    sources, found = sorted((SCENE if SCENE.is_dir() else ROOT / "demo" / "images").glob("*.jpg")), []
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as image:
            picture = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        if max(size) > SIZE:
            picture = Image.blend(picture, Image.effect_noise(size, 40).convert("RGB"), 0.1)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def ways(folder: str) -> dict:
    """Functions from a file's bytes to a picture."""
    from pipeline.images.decoding import decode

    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, PIN], check=True)
    sys.path.append(folder)
    import simplejpeg

    return {
        "Pillow: open, convert, exif_transpose": lambda content: ImageOps.exif_transpose(
            Image.open(io.BytesIO(content)).convert("RGB")
        ),
        "the pipeline's": decode,
        "simplejpeg, as a picture": lambda content: Image.fromarray(simplejpeg.decode_jpeg(content, "RGB")),
        "the pipeline's, `draft: true`": lambda content: decode(content, 2 * SIZE),
    }


def rate(decode, files: list[bytes]) -> float:
    def prepared(content: bytes) -> None:
        picture = decode(content).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(prepared, files))
    return len(files) / (time.perf_counter() - began)


def main() -> str:
    """Measure, and return the Markdown table."""
    from pipeline.core.memory import keep_freed

    keep_freed()
    lines = [
        "### Decoding (bench/decoding.py)",
        "",
        f"JPEGs of quality 90 in memory, decoded and resized to {SIZE} x {SIZE} by {THREADS} threads; median of "
        f"{ROUNDS} alternating rounds: images a second, and over the first way.",
        "",
        f"| way | {' | '.join(KINDS)} |",
        f"|---|{'---|' * len(KINDS)}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        columns, decoders = [], ways(folder)
        for size, count in KINDS.values():
            files, found = photographs(size, count), {name: [] for name in decoders}
            for _ in range(ROUNDS):
                for name, way in decoders.items():
                    found[name].append(rate(way, files))
            columns.append({name: statistics.median(rates) for name, rates in found.items()})
        for name in columns[0]:
            cells = [f"{column[name]:,.1f} ({column[name] / next(iter(column.values())):.2f})" for column in columns]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", FINDINGS])


FINDINGS = """simplejpeg (libjpeg-turbo, as Pillow's own here) gave Pillow's pixels bit for bit for all of 6,237
photographs and 1,500 made JPEGs (grey, progressive, every subsampling, restart markers); of 800 damaged
ones it took none that Pillow refuses, and refused 212 that Pillow takes; CMYK differs. As Pillow then
needs a copy of its array, nothing of its lead is left for large photographs, and some percent for small
ones: it is not used. Of a photograph of 12 megapixels 42 ms are decoding and 59 ms resizing, 55 of
them the horizontal pass; channel by channel it gives the same pixels in 80 ms. Nothing else was found that does.
Small ones do not scale with threads: what Pillow does in Python is one at a time."""


if __name__ == "__main__":
    print(main())
