"""Every kind of image file gives the pixels that were drawn, or a DamagedImage that says why not; nothing else."""

import io
import os
import resource
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from pipeline.core.errors import UserError
from pipeline.images.decoding import TOLERANCE, DamagedImage, Policy, Unreadable, decode, read

from .. import zoo

CORPUS = Path(__file__).parent.parent / "corpus" / "images"
FILL = Policy(fill=True, fallback=True)


@pytest.mark.parametrize("name", zoo.whole())
def test_a_file_gives_what_was_drawn(name):
    specimen = zoo.whole()[name]
    seen = read(specimen.content)
    assert seen.image.mode == "RGB"
    off = np.abs(np.asarray(seen.image).astype(int) - specimen.pixels)
    assert off.shape == specimen.pixels.shape
    assert off.max() <= specimen.tolerance
    assert (seen.several, seen.damage) == (specimen.several, "")


@pytest.mark.parametrize("name", zoo.in_memory())
def test_a_pillow_image_gives_what_was_drawn(name):
    image, pixels, tolerance = zoo.in_memory()[name]
    before = image.tobytes(), dict(image.info)
    seen = np.asarray(decode(image)).astype(int)
    # what is nearly hidden has lost its colour in a premultiplied image
    assert np.abs(seen - pixels).max() <= tolerance
    assert (image.tobytes(), image.info) == before


@pytest.mark.parametrize("name", zoo.plain())
def test_plain_files_are_exactly_what_pillow_converts_them_to(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(zoo.plain()[name].content)
    assert decode(path).tobytes() == Image.open(path).convert("RGB").tobytes()


@pytest.mark.parametrize("name", zoo.turned())
def test_orientations_are_what_pillow_makes_of_them(name):
    image = Image.open(io.BytesIO(zoo.turned()[name].content))
    expected = image.convert("RGB") if "badly" in name else ImageOps.exif_transpose(image).convert("RGB")
    assert decode(zoo.turned()[name].content).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", [name for name in zoo.turned() if "badly" not in name])
def test_what_was_turned_does_not_say_that_it_is_still_to_be_turned(name):
    picture = decode(zoo.turned()[name].content)
    assert ImageOps.exif_transpose(picture).tobytes() == picture.tobytes()


def test_a_photograph_is_not_copied():
    """Of 12 megapixels each copy takes as long as a sixth of decoding them."""
    image = Image.open(io.BytesIO(zoo.saved(zoo.noise(20, 40, 3), "JPEG")))
    assert decode(image) is image


def test_an_orientation_counts_beside_metadata_that_pillow_cannot_write():
    tags = struct.pack("<HHLl", 256, 9, 1, -5) + struct.pack("<HHLL", 274, 3, 1, 6)  # a signed width; turned
    metadata = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 2) + tags + bytes(4)
    content = zoo.saved(zoo.noise(20, 40, 3), "JPEG", exif=metadata)
    image = Image.open(io.BytesIO(content))
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    assert decode(content).tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize("name", zoo.damaged())
@pytest.mark.parametrize("policy", [Policy(), Policy(fallback=True)], ids=["error", "fallback"])
def test_a_damaged_file_says_what_is_wrong(name, policy, tmp_path):
    content, why = zoo.damaged()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedImage) as error:
        read(tmp_path / name, policy=policy)
    assert why in error.value.why
    assert error.value.why
    assert f"cannot read image {tmp_path / name}: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_filling_uses_what_there_is(kind):
    content = zoo.saved(np.asarray(Image.fromarray(zoo.noise(4, 4, 3)).resize((160, 120))), kind)
    whole = np.asarray(decode(content))
    cut = content[: len(content) // 2]
    with pytest.raises(DamagedImage):
        read(cut)
    seen = read(cut, policy=FILL)
    pixels = np.asarray(seen.image)
    assert seen.damage
    # BMP is stored upside down
    there = slice(-40, None) if kind == "BMP" else slice(0, 24)
    np.testing.assert_array_equal(pixels[there], whole[there])
    assert (pixels != whole).any()


def test_filling_is_what_pillow_does_when_told_to_load_truncated_images():
    content = zoo.damaged()["truncated.jpg"][0]
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    seen = read(content, policy=FILL).image
    with TOLERANCE.of(True):
        expected = Image.open(io.BytesIO(content)).convert("RGB")
    assert seen.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["empty.jpg", "text.jpg", "header_only.jpg", "bomb.png", "photo.heic"])
def test_what_holds_no_part_of_a_picture_is_not_filled(name):
    with pytest.raises(DamagedImage):
        read(zoo.damaged()[name][0], policy=FILL)


def test_a_file_that_ends_before_its_first_pixel_is_not_a_black_picture():
    content = zoo.saved(zoo.SMOOTH, "PNG")
    with pytest.raises(DamagedImage):
        read(content[: content.index(b"IDAT") + 8], policy=FILL)


def test_filling_in_one_thread_lets_no_other_take_damage_for_a_picture():
    """Pillow's own switch is one for the process; hundreds of decodings side by side must not see each other's."""
    content = zoo.damaged()["truncated.jpg"][0]

    def outcome(number: int) -> bool:
        try:
            return bool(read(content, policy=FILL if number % 2 else Policy()).image)
        except DamagedImage:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(outcome, range(600))) == [False, True] * 300
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_the_host_programs_own_setting_stays_its_own(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = zoo.damaged()["truncated.jpg"][0]
    with pytest.raises(DamagedImage):
        read(content)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with pytest.raises(DamagedImage):
        read(content)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_the_limit_can_be_raised_and_lowered():
    content = zoo.saved(np.zeros((100, 100), np.uint8), "PNG")
    assert read(content, policy=Policy(max_pixels=10_000)).image.size == (100, 100)
    with pytest.raises(DamagedImage, match=r"100x100 pixels \(10,000\); the limit is max_pixels: 9999"):
        read(content, policy=Policy(max_pixels=9_999))
    large = zoo.png(1, 0, np.zeros((15000, 1875), np.uint8), size=(15000, 15000))
    assert read(large, policy=Policy(max_pixels=300_000_000)).image.size == (15000, 15000)


def test_a_file_of_an_impossible_size_is_not_read_into_memory(tmp_path):
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(10**12)
    with pytest.raises(DamagedImage, match="1,000,000,000,000 bytes"):
        decode(tmp_path / "sparse.jpg")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Unreadable, match="cannot read image .*gone.jpg: No such file"):
        decode(tmp_path / "gone.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "locked.jpg")
    (tmp_path / "locked.jpg").chmod(0)
    with pytest.raises(Unreadable, match="locked.jpg: Permission denied"):
        decode(tmp_path / "locked.jpg")


def test_draft_keeps_the_colours_of_every_mode():
    for name in ("rgb.jpg", "cmyk.jpg", "turned6.jpg"):
        content = zoo.whole()[name].content
        whole, small = decode(content), read(content, draft_size=8).image
        assert small.size == tuple((side + 1) // 2 for side in whole.size) or small.width < whole.width
        difference = np.abs(np.asarray(whole.resize(small.size, Image.Resampling.BOX)).astype(int) - np.asarray(small))
        assert difference.mean() < 12


# ---- bytes that are nearly images

SEEDS = sorted(name for name in zoo.whole() if "20000" not in name)
SMALL = Policy(max_pixels=1_000_000, fill=True, fallback=True)
SECONDS = 5  # of the processor, for any of these tiny files
NUMBERS = (0, 0xFFFF, 0x10000, 0xFFFF0000, 0x7FFFFFFF, 0xFFFFFFFF)


def check(content: bytes) -> None:
    """An RGB picture within the limit or a DamagedImage, soon."""
    began = time.process_time()
    for policy in (Policy(max_pixels=SMALL.max_pixels), SMALL):
        try:
            seen = read(content, policy=policy)
        except UserError as error:
            assert isinstance(error, DamagedImage)
            assert error.why
        else:
            assert seen.image.mode == "RGB"
            assert seen.image.width * seen.image.height <= policy.max_pixels
            assert len(seen.image.tobytes()) == 3 * seen.image.width * seen.image.height
    assert time.process_time() - began < SECONDS


@st.composite
def nearly_images(draw) -> bytes:
    """A file of the zoo with flipped bits, changed, cut, doubled or foreign parts."""
    content = bytearray(zoo.whole()[draw(st.sampled_from(SEEDS))].content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, min(len(content) - 1, 5000))))
        match draw(st.sampled_from(["flip", "set", "number", "cut", "remove", "double", "splice"])):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if content:
                content[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
            case "number":
                content[at : at + 4] = draw(st.sampled_from(NUMBERS)).to_bytes(4)
            case "cut":
                del content[at:]
            case "remove":
                del content[at : at + draw(st.integers(1, 64))]
            case "double":
                content[at:at] = content[at : at + draw(st.integers(1, 64))]
            case "splice":
                other = zoo.whole()[draw(st.sampled_from(SEEDS))].content
                content[at:] = other[min(at, len(other)) :]
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
@given(nearly_images())
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_bytes_that_are_nearly_an_image(content):
    check(content)


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("share", range(4))
def test_very_many_bytes_that_are_nearly_an_image(share):
    """10,000 inputs a share, and no more memory than a few images of the largest size take."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @seed(share)
    @given(nearly_images())
    @settings(max_examples=10_000, suppress_health_check=list(HealthCheck), database=None)
    def run(content):
        check(content)

    run()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_once_went_wrong(path):
    check(path.read_bytes())
