"""Super-resolution networks from local files (SRGAN, ESRGAN, SwinIR, ...), run on an image tile by tile.

The files are read by spandrel, which knows their architectures; TorchScript files, which are code, are refused.
"""

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import Damaged, Mismatch, NotFound, UserError
from ..core.extras import need

EXTENSIONS = (".safetensors", ".pth", ".ckpt")


class Network:
    """One network on one device. Threads share it and take turns: each image uses the whole device anyway."""

    def __init__(self, path: Path, device: str):
        from ..core._torchvision import allow_import

        allow_import()
        import spandrel

        try:
            model = spandrel.ModelLoader(device).load_from_file(path)
        except Exception as error:  # a damaged or unknown file fails in many ways
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise Damaged(f"{path}: no super-resolution network that spandrel knows ({reason[0]})") from None
        if not isinstance(model, spandrel.ImageModelDescriptor) or model.input_channels not in (1, 3):
            raise Mismatch(f"{path}: {model.architecture.name} does not enlarge RGB images")
        self.model, self.device, self.scale = model.eval(), device, model.scale
        self.whole = model.tiling is not spandrel.ModelTiling.SUPPORTED  # such a network has to see all of the image
        self.lock = threading.Lock()

    def __call__(self, image: Image.Image, tile: int, overlap: int) -> Image.Image:
        """RGB image -> RGB image, `scale` times as large; `tile` and `overlap` in pixels of the image given."""
        import torch

        channels = image if self.model.input_channels == 3 else image.convert("L")
        array = np.atleast_3d(np.asarray(channels)).transpose(2, 0, 1).copy()
        with self.lock, torch.inference_mode():
            pixels = torch.from_numpy(array)[None].to(self.device).float() / 255
            found = self.model(pixels) if self.whole else tiled(self.model, pixels, self.scale, tile, overlap)
            made = (found[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(made if made.shape[2] == 3 else made.squeeze(2)).convert("RGB")


def tiled(run, pixels, scale: int, tile: int, overlap: int):
    """`run` over tiles of (1, 3, H, W) with `overlap` pixels around each that are thrown away; (1, 3, H x s, W x s).

    Equal to running it on the whole where the overlap is at least as wide as what an output pixel depends on.
    """
    import torch

    height, width = pixels.shape[2:]
    rows = []
    for top in range(0, height, tile):
        row = []
        for left in range(0, width, tile):
            first, start = max(0, top - overlap), max(0, left - overlap)
            part = run(pixels[:, :, first : top + tile + overlap, start : left + tile + overlap])
            y, x = (top - first) * scale, (left - start) * scale
            row.append(part[:, :, y : y + min(tile, height - top) * scale, x : x + min(tile, width - left) * scale])
        rows.append(torch.cat(row, dim=3))
    return torch.cat(rows, dim=2)


@dataclass(frozen=True)
class Place:
    """Where the files that recipes name lie, and where their networks run."""

    root: Path = Path()
    device: str = "cpu"


def opened(place: Place, arguments: dict, where: str) -> Callable[[], Network]:
    """How op upscale gets its `network`: loaded when the first image needs it, and shared by all threads.

    UserError beside arguments that a network has itself, for an absent file, or one of a kind that is not read.
    """
    if {"factor", "method"} & set(arguments):
        raise UserError(f"{where}: upscale: a network has its own factor and method; leave them out")
    path = place.root / arguments["network"]
    if not path.is_file():
        raise NotFound(f"{where}: upscale: no network at {path}; bring the file")
    if path.suffix.lower() not in EXTENSIONS:
        raise UserError(f"{where}: upscale: {path}: networks are read from {', '.join(EXTENSIONS)} files")
    return functools.partial(network, path, place.device, where)


_loading = threading.Lock()


def network(path: Path, device: str, where: str) -> Network:
    """The network of a file, loaded once; UserError without spandrel, or for a file that it does not know."""
    need("upscale", f"{where}: upscale by a network")
    with _loading:
        return _network(path.absolute(), path.stat().st_mtime_ns, device)


@functools.lru_cache(maxsize=1)
def _network(path: Path, changed: int, device: str) -> Network:
    return Network(path, device)
