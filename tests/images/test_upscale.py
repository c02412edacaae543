"""Op upscale: by resampling it is Pillow's; by a network it is that network's, whatever the tiles."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.chain import preprocess
from pipeline.chain.stage import made
from pipeline.core import extras
from pipeline.core._torchvision import allow_import
from pipeline.core.errors import Damaged, NotFound, Unavailable, UserError
from pipeline.images import upscale
from pipeline.images.ops import Place, compile_recipe
from pipeline.recipes import Preprocess

from ..conftest import fresh, pipeline, refused, write_yaml

needs_spandrel = pytest.mark.skipif(importlib.util.find_spec("spandrel") is None, reason="spandrel is optional")
SCALE, SEEN = 4, 24  # an output pixel of the tiny network depends on fewer input pixels to each side than SEEN


def write_network(path, seed: int = 0, blocks: int = 1) -> None:
    """Random weights in the layout of ESRGAN files, as the architecture's own class names them."""
    allow_import()
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(ESRGAN(num_filters=8, num_blocks=blocks, scale=SCALE).state_dict(), path)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def prepared(root, size: int, *ops):
    return compile_recipe(Preprocess.parse({"size": size, "ops": list(ops)}, "r.yaml"), "r.yaml", Place(root))


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
def test_resampling_is_pillows(method, tmp_path):
    image = picture(20, 20)
    expected = np.asarray(image.resize((60, 60), Image.Resampling[method.upper()])).transpose(2, 0, 1)
    assert np.array_equal(prepared(tmp_path, 60, {"upscale": {"factor": 3, "method": method}})(image), expected)
    assert prepared(tmp_path, 40, "upscale")(image).shape == (3, 40, 40), "twice as large by default"


@needs_spandrel
@pytest.mark.parametrize(("width", "height"), [(70, 45), (33, 90)])
def test_tiles_give_what_the_whole_gives(width, height, tmp_path):
    write_network(tmp_path / "x4.pth")
    network = upscale.network(tmp_path / "x4.pth", "cpu", "r.yaml")
    image = picture(width, height)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    whole = network.model(pixels)
    assert whole.std() > 0.01 and whole.shape[2:] == (SCALE * height, SCALE * width)
    torch.testing.assert_close(upscale.tiled(network.model, pixels, SCALE, 32, SEEN), whole, atol=1e-5, rtol=0)
    without = upscale.tiled(network.model, pixels, SCALE, 32, 0)
    assert (without - whole).abs().max() > 1e-3, "without overlap the seams show"
    expected = (whole[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(network(image, 32, SEEN)).astype(int) - expected).max() <= 1


@needs_spandrel
def test_another_network_makes_another_artefact(project_root):
    """The pixels follow the file's content; threads share one network."""
    write_network(project_root / "data" / "x4.pth")
    ops = [{"upscale": {"network": "data/x4.pth", "tile": 32}}, {"resize": "squash"}]
    write_yaml(project_root / "preprocess" / "sr.yaml", {"size": 32, "ops": ops})
    few = {"data": "data/tiny/[0-3].jpg", "workers": 3}
    first = made(preprocess.stage(fresh(project_root, **few), "sr"))
    image = Image.open(project_root / "data" / "tiny" / "0.jpg").convert("RGB")
    network = upscale.network(project_root / "data" / "x4.pth", "cpu", "x")
    expected = network(image, 32, 32).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(first.rows("pixels", 0, 1)[0].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert preprocess.stage(fresh(project_root, **few), "sr").digest == first.digest
    write_network(project_root / "data" / "x4.pth", seed=1)
    second = made(preprocess.stage(fresh(project_root, **few), "sr"))
    assert second.digest != first.digest
    assert not torch.equal(second.rows("pixels", 0, 1), first.rows("pixels", 0, 1))


@needs_spandrel
@pytest.mark.parametrize(
    ("file", "kind", "parts"),
    [
        ("none.pth", NotFound, ["none.pth", "bring the file"]),
        ("code.pt", UserError, ["code.pt", ".safetensors, .pth, .ckpt"]),
        ("broken.pth", Damaged, ["broken.pth"]),
        ("other.safetensors", Damaged, ["other.safetensors"]),
    ],
)
def test_files_that_are_no_network(tmp_path, file, kind, parts):
    from safetensors.torch import save_file

    (tmp_path / "code.pt").write_bytes(b"code")
    (tmp_path / "broken.pth").write_bytes(b"\x00" * 100)
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with refused(kind, *parts):
        prepared(tmp_path, 64, {"upscale": {"network": file}})(picture(16, 16))


def test_a_network_has_its_own_factor(tmp_path):
    with refused(UserError, "upscale", "factor and method"):
        prepared(tmp_path, 64, {"upscale": {"network": "x.pth", "factor": 2}})
    with refused(UserError, "upscale: method", "'nearest'"):
        prepared(tmp_path, 64, {"upscale": {"method": "nearest"}})


def test_without_spandrel_the_pip_command_is_told(tmp_path, monkeypatch):
    (tmp_path / "x4.pth").write_bytes(b"")
    monkeypatch.setattr(extras, "_installed", lambda name: False)
    with refused(Unavailable, "spandrel", "pip install spandrel=="):
        prepared(tmp_path, 64, {"upscale": {"network": "x4.pth"}})(picture(16, 16))


@needs_spandrel
def test_from_the_command_line_a_missing_network_is_one_line(project_root):
    ops = [{"upscale": {"network": "x4.pth"}}, {"resize": "squash"}]
    write_yaml(project_root / "preprocess" / "tiny.yaml", {"size": 32, "ops": ops})
    done = pipeline(project_root, "preprocess", "--competition", "tiny", "--preprocess", "tiny")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "error: preprocess/tiny.yaml: ops.0: upscale: no network at x4.pth; bring the file"
    ]
