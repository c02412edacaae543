"""A clone of this checkout with images, and with tiny stand-ins for what a reader would download or bring."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from ..conftest import ROOT, spread_image_features, tiny_config
from .pages import PAGES

SIZE = 224
VEHICLES = ("Bicycle", "Boat", "Bus", "Car", "Train", "Truck")
SCENES = ("buildings", "forest", "sea")
EACH = {"train": 8, "test": 4}  # images of each class


def cloned(folder: Path) -> Path:
    """The files of the working tree that git knows or would know."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for file in filter(None, files):
        if file.startswith(("tests/", "bench/")) or not (ROOT / file).is_file():
            continue
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.startswith("demo/"):
            target.symlink_to(ROOT / file)
        else:
            shutil.copyfile(ROOT / file, target)
    return folder


def with_images(root: Path) -> None:
    """The demo's images in the place of every folder of data that a page names."""
    pool = sorted((ROOT / "demo" / "images").iterdir(), key=lambda path: int(path.stem))
    for place, count in (("mushrooms", 12), ("scene/images", 24)):
        _link(root / "data" / place, pool[:count])
    for place, classes in (("few_shot", VEHICLES), ("intel_dev", SCENES)):
        start = 0
        for split, count in EACH.items():
            for class_name in classes:
                _link(root / "data" / place / split / class_name, pool[start : start + count])
                start += count


def _link(folder: Path, images: list[Path]) -> None:
    folder.mkdir(parents=True)
    for image in images:
        (folder / image.name).symlink_to(image)


def with_models(root: Path, checkpoints: Path) -> None:
    """A tiny random checkpoint in the place of every published one that a page or its recipes name."""
    path = root / "models.yaml"
    entries, read = yaml.safe_load(path.read_text()), "\n".join(page.read_text() for page in PAGES)
    read += "".join(file.read_text() for kind in ("ensembles", "training") for file in (root / kind).glob("*.yaml"))
    for name, entry in entries.items():
        if "weights" in entry or not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", read):
            continue
        if entry["family"] == "timm":
            if name == "mobilenetv2-100":
                entry["weights"] = str(checkpoints / "mobilenet.safetensors")
            continue
        stand_in = {"family": "open_clip", "weights": str(checkpoints / "tower"), "preprocess": entry["preprocess"]}
        entries[name] = stand_in | {"allow": ["resize_mode"]}
    path.write_text(yaml.safe_dump(entries, sort_keys=False))


def tiny_checkpoints(folder: Path) -> Path:
    """`tower`, an open_clip model for 224 pixels, and `mobilenet.safetensors`, timm's architecture; both random."""
    import open_clip
    import timm

    config = tiny_config(2)
    config["model_cfg"]["vision_cfg"] |= {"image_size": SIZE, "patch_size": 56}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config["model_cfg"])
    (folder / "tower").mkdir()
    (folder / "tower" / "open_clip_config.json").write_text(json.dumps(config))
    spread_image_features(model.visual, SIZE)
    save_file(model.state_dict(), folder / "tower" / "open_clip_model.safetensors")
    backbone = timm.create_model("mobilenetv2_100", pretrained=False)
    save_file(backbone.state_dict(), folder / "mobilenet.safetensors")
    return folder


def shell(line: str, root: Path) -> subprocess.CompletedProcess:
    """A line as a reader types it, but with this interpreter, packages in a folder of its own, and without any hub."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHONPATH"))}
    line = re.sub(r"^make ", f"make PYTHON={sys.executable} ", line.replace(" PYTHON=python3", ""))
    line = line.replace("pip install ", "pip install --quiet --no-index --no-deps --no-build-isolation --target site ")
    line = re.sub(r"^python ", f"{sys.executable} ", line)
    kept |= {"PYTHONPATH": str(root / "site"), "PATH": f"{root / 'site' / 'bin'}:{kept['PATH']}"}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=root,
        env=kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
