"""Render the demo's test images and their labels: 600 blurry scenes, the same on every run.

Run from the project root: python demo/render.py
"""

import argparse
from pathlib import Path

import numpy as np
from camera import degrade, jpeg, photograph
from scenes import CLASSES
from tqdm import tqdm

HERE = Path(__file__).parent
FIRST_SEED = 1_000_000  # train.py draws its pictures from seeds below this one
SIDES = 22, 34  # detail left in a picture, in pixels
QUALITIES = 75, 92  # of the JPEG files


def main() -> None:
    """Write images/0.jpg, images/1.jpg, ... and solution.csv beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-class", type=int, default=100, help="images of each class")
    parser.add_argument("--size", type=int, default=128, help="stored width and height in pixels")
    parser.add_argument("--out", type=Path, default=HERE, help="folder that receives images/ and solution.csv")
    parser.add_argument("--overwrite", action="store_true", help="replace files that would come out different")
    args = parser.parse_args()

    (args.out / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(FIRST_SEED)
    labels = rng.permutation(np.repeat(np.arange(len(CLASSES)), args.per_class))
    for index, label in enumerate(tqdm(labels, desc="rendering", unit="image")):
        image, _ = photograph(int(label), FIRST_SEED + index)
        blurry = degrade(image, int(rng.integers(*SIDES, endpoint=True)), args.size)
        data = jpeg(blurry, int(rng.integers(*QUALITIES, endpoint=True)))
        write(args.out / "images" / f"{index}.jpg", data, args.overwrite)
    rows = [f"{index},{label}\n" for index, label in enumerate(labels)]
    write(args.out / "solution.csv", ("id_idx,label\n" + "".join(rows)).encode(), args.overwrite)


def write(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a file unless it is there already; one with other content is only replaced when asked to."""
    if path.exists() and path.read_bytes() == data:
        return
    if path.exists() and not overwrite:
        raise SystemExit(f"{path} exists and would change: give --overwrite, or another folder with --out")
    path.write_bytes(data)


if __name__ == "__main__":
    main()
