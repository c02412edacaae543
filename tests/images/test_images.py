"""Listing and decoding images; ops equal torchvision's PIL path pixel for pixel."""

import resource

import numpy as np
import pytest
from PIL import Image, ImageFilter
from torchvision import transforms as T
from torchvision.transforms import functional as F

from pipeline.core.errors import Mismatch, NotFound, UserError
from pipeline.images.listing import list_images
from pipeline.images.ops import OPS, compile_recipe
from pipeline.recipes import Preprocess

from ..conftest import refused


@pytest.fixture(params=[(50, 37), (37, 50), (64, 64), (20, 90)], ids=str)
def image(request) -> Image.Image:
    rng = np.random.default_rng(request.param[0])
    noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(request.param)
    return noise.filter(ImageFilter.SMOOTH)


def apply(ops: list, image: Image.Image, size: int = 32) -> np.ndarray:
    return compile_recipe(Preprocess.parse({"size": size, "ops": ops}, "r.yaml"), "r.yaml")(image).transpose(1, 2, 0)


BICUBIC = T.InterpolationMode.BICUBIC
CROP = ["center_crop"]


@pytest.mark.parametrize(
    ("ops", "reference"),
    [
        (["resize"], T.Resize((32, 32), BICUBIC)),
        (
            [{"resize": "squash"}, {"sharpen": 2.3}],
            T.Compose([T.Resize((32, 32), BICUBIC), T.RandomAdjustSharpness(2.3, p=1)]),
        ),
        ([{"resize": "shortest"}, *CROP], T.Compose([T.Resize(32, BICUBIC), T.CenterCrop(32)])),
        ([{"resize": {"interpolation": "bilinear"}}], T.Resize((32, 32), T.InterpolationMode.BILINEAR, antialias=True)),
        (
            [{"resize": {"mode": "shortest", "interpolation": "lanczos"}}, *CROP],
            T.Compose([T.Resize(32, T.InterpolationMode.LANCZOS), T.CenterCrop(32)]),
        ),
        ([*CROP], T.CenterCrop(32)),
        ([{"sharpen": 0.5}, *CROP], T.Compose([T.RandomAdjustSharpness(0.5, p=1), T.CenterCrop(32)])),
        (["autocontrast", *CROP], T.Compose([T.RandomAutocontrast(p=1), T.CenterCrop(32)])),
        (["equalize", *CROP], T.Compose([T.RandomEqualize(p=1), T.CenterCrop(32)])),
        ([{"contrast": 1.4}, *CROP], T.Compose([lambda i: F.adjust_contrast(i, 1.4), T.CenterCrop(32)])),
        ([{"brightness": 0.7}, *CROP], T.Compose([lambda i: F.adjust_brightness(i, 0.7), T.CenterCrop(32)])),
        ([{"saturation": 1.8}, *CROP], T.Compose([lambda i: F.adjust_saturation(i, 1.8), T.CenterCrop(32)])),
        (["grayscale", *CROP], T.Compose([T.Grayscale(3), T.CenterCrop(32)])),
        (
            [{"gaussian_blur": {"sigma": 1.5, "kernel_size": 7}}, *CROP],
            T.Compose([lambda i: F.gaussian_blur(i, [7, 7], [1.5, 1.5]), T.CenterCrop(32)]),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_ops_equal_torchvision(image, ops, reference):
    np.testing.assert_array_equal(apply(ops, image), np.asarray(reference(image)))


def test_pad_square_keeps_the_whole_image(image):
    padded = OPS["pad_square"](image, 32)
    assert padded.size == (max(image.size),) * 2
    left, top = (padded.width - image.width) // 2, (padded.height - image.height) // 2
    inner = padded.crop((left, top, left + image.width, top + image.height))
    np.testing.assert_array_equal(np.asarray(inner), np.asarray(image))


def test_the_result_is_channels_first_uint8(image):
    recipe = Preprocess.parse({"size": 32, "ops": ["resize"]}, "r.yaml")
    pixels = compile_recipe(recipe, "r.yaml")(image)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, 32, 32))


@pytest.mark.parametrize(
    ("ops", "kind", "parts"),
    [
        ([{"sharpn": 2}], NotFound, ["r.yaml: ops.0", "'sharpn'", "Did you mean 'sharpen'?"]),
        (["sharpen"], UserError, ["sharpen needs 'factor'"]),
        ([{"sharpen": -1.0}], UserError, ["sharpen: factor", "-1.0"]),
        ([{"sharpen": "much"}], UserError, ["sharpen: factor", "'much'"]),
        ([{"resize": "stretch"}], UserError, ["resize: mode", "'squash' or 'shortest'"]),
        ([{"resize": {"mod": "squash"}}], NotFound, ["resize", "'mod'", "Did you mean 'mode'?"]),
        ([{"autocontrast": 3}], UserError, ["autocontrast", "found 3"]),
        ([{"image": 1}], NotFound, ["'image'"]),
        ([{"resize": {"size": 3}}], NotFound, ["resize", "'size'"]),
    ],
)
def test_recipe_mistakes(ops, kind, parts):
    with refused(kind, *parts):
        compile_recipe(Preprocess.parse({"size": 32, "ops": ops}, "r.yaml"), "r.yaml")


def test_ops_that_end_in_another_size_are_told(image):
    with refused(Mismatch, "r.yaml", "16x16", "'center_crop'"):
        apply(["autocontrast"], image, size=16)


def test_natural_order_and_stray_files(tmp_path):
    for name in ("10.jpg", "2.jpg", "1.JPG", "a1.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._2.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "@eaDir").mkdir()
    found = list_images(str(tmp_path), "here")
    assert found.ids == ("1.JPG", "2.jpg", "10.jpg", "a1.png")
    assert len(found.left_out) == 4


def test_globs(tmp_path):
    for name in ("b/2.jpg", "b/10.jpg", "a/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert list_images(f"{tmp_path}/**/*.jpg", "here").ids == ("a/1.jpg", "b/2.jpg", "b/10.jpg")
    with refused(NotFound, "**/*.jpg"):
        list_images(str(tmp_path), "here")


def test_no_folder(tmp_path):
    with refused(NotFound, "DATA", "nowhere"):
        list_images(str(tmp_path / "nowhere"), "DATA")


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (3, 9000), (1, 1)], ids=str)
@pytest.mark.parametrize("ops", [[{"resize": "shortest"}, *CROP], ["pad_square", "resize"], ["resize"]], ids=str)
def test_the_longest_images_stay_small_in_memory(size, ops):
    """The middle of it is right, and no step makes a picture of a hundred megapixels on the way."""
    grey = np.full((size[1], size[0], 3), 90, np.uint8)
    grey[: size[1] // 3, : size[0] // 3] = 200  # an end that a crop of the middle does not show
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = apply(ops, Image.fromarray(grey))
    assert pixels.shape == (32, 32, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kB
    if ops == [{"resize": "shortest"}, *CROP] and max(size) > 1:
        assert (pixels == 90).all()


def test_an_image_of_any_usual_shape_is_resized_whole(image):
    """The limit on the length is far from photographs: up to 64 to 1 nothing is cut."""
    long = image.resize((20, 20 * 64))
    np.testing.assert_array_equal(
        apply([{"resize": "shortest"}, *CROP], long),
        np.asarray(T.Compose([T.Resize(32, BICUBIC), T.CenterCrop(32)])(long)),
    )
