"""Image files of every kind, tiny, with the pixels they must give: computed from what was drawn, not by decoding."""

import colorsys
import io
import struct
import zlib
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipeline.images.specimens import noise, smooth

HEIGHT, WIDTH = 9, 12
ORIENTATION = 0x0112
TURNED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: np.rot90,
}


class Specimen(NamedTuple):
    """A file, the RGB pixels that it shows, how far a decoder may be off, and whether it holds more pictures."""

    content: bytes
    pixels: np.ndarray
    tolerance: int = 0
    several: bool = False


def saved(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def grey(values: np.ndarray) -> np.ndarray:
    """(H, W) -> (H, W, 3)."""
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, axis=2)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[:, :, None] / 255
    return (rgb * share + 255 * (1 - share)).round().astype(np.uint8)


def png(depth: int, colour: int, rows: np.ndarray, *chunks: tuple[bytes, bytes], size=None) -> bytes:
    """A PNG put together by hand; `rows` (H, bytes) are the packed samples, `chunks` go before the pixels."""
    width, height = size or (WIDTH, HEIGHT)
    lines = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), *chunks, (b"IDAT", lines), (b"IEND", b"")):
        made += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return made


def big_endian(values: np.ndarray) -> np.ndarray:
    """uint16 samples as the rows of a PNG."""
    return np.frombuffer(values.astype(">u2").tobytes(), np.uint8).reshape(len(values), -1)


def tiff(bits: int, photometric: int, data: bytes, size=(WIDTH, HEIGHT)) -> bytes:
    """A little-endian grey TIFF of one uncompressed strip, put together by hand."""
    tags = [
        (256, 4, size[0]),
        (257, 4, size[1]),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, size[1]),
        (279, 4, len(data)),
    ]
    data += b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags
    )
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + b"\0\0\0\0"


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ORIENTATION] = orientation
    return made


RGB = noise(HEIGHT, WIDTH, 3)
GREY = noise(HEIGHT, WIDTH)
ALPHA = noise(HEIGHT, WIDTH, seed=1)
ALPHA[:3], ALPHA[3:6] = 0, 255  # hidden, seen, and in between
DEEP = noise(HEIGHT, WIDTH, top=65536, dtype=np.uint16)
SMOOTH = np.asarray(smooth(40, 30))  # for lossy formats


def plain() -> dict[str, Specimen]:
    """Files without any policy: what Pillow's convert("RGB") gives."""
    made = {
        f"rgb.{name}": Specimen(saved(RGB, kind), RGB)
        for name, kind in (("png", "PNG"), ("bmp", "BMP"), ("ppm", "PPM"), ("tif", "TIFF"))
    }
    made["rgb.webp"] = Specimen(saved(RGB, "WEBP", lossless=True), RGB)
    made["rgb.jp2"] = Specimen(saved(RGB, "JPEG2000"), RGB)
    made["rgb_packed.tif"] = Specimen(saved(RGB, "TIFF", compression="tiff_lzw"), RGB)
    for name, options in (("jpg", {}), ("progressive.jpg", {"progressive": True}), ("444.jpg", {"subsampling": 0})):
        content = saved(SMOOTH, "JPEG", quality=95, **options)
        made[f"rgb.{name}"] = Specimen(content, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    made["rgb.avif"] = Specimen(saved(SMOOTH, "AVIF", quality=95), SMOOTH, 16)
    made |= {
        f"grey.{name}": Specimen(saved(GREY, kind), grey(GREY))
        for name, kind in (("png", "PNG"), ("pgm", "PPM"), ("gif", "GIF"), ("bmp", "BMP"))
    }
    bits = GREY > 127
    made |= {
        f"one_bit.{name}": Specimen(saved(Image.fromarray(bits), kind), grey(255 * bits))
        for name, kind in (("png", "PNG"), ("tif", "TIFF"), ("pbm", "PPM"), ("bmp", "BMP"))
    }
    few = Image.fromarray(RGB).quantize(8)
    colours = np.array(few.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(few)]
    made |= {f"palette.{kind.lower()}": Specimen(saved(few, kind), colours) for kind in ("PNG", "GIF", "BMP", "TIFF")}
    made["rgb16.png"] = Specimen(png(16, 2, big_endian(_deep_rgb().reshape(HEIGHT, -1))), (_deep_rgb() >> 8))
    for name, shape in (("1x1", (1, 1, 3)), ("1x20000", (20000, 1, 3)), ("20000x1", (1, 20000, 3))):
        made[f"{name}.png"] = Specimen(saved(noise(*shape), "PNG"), noise(*shape))
    return made


def _deep_rgb() -> np.ndarray:
    return noise(HEIGHT, WIDTH, 3, top=65536, dtype=np.uint16)


def turned() -> dict[str, Specimen]:
    """EXIF orientations in every format that has them, and a damaged one, which nobody heeds."""
    made = {}
    for number, turn in TURNED.items():
        made[f"turned{number}.png"] = Specimen(saved(RGB, "PNG", exif=exif(number)), turn(RGB))
        made[f"turned{number}.webp"] = Specimen(saved(RGB, "WEBP", lossless=True, exif=exif(number)), turn(RGB))
        made[f"turned{number}.tif"] = Specimen(saved(RGB, "TIFF", tiffinfo={ORIENTATION: number}), turn(RGB))
        content = saved(SMOOTH, "JPEG", exif=exif(number))
        as_stored = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        made[f"turned{number}.jpg"] = Specimen(content, turn(as_stored))
    content = saved(SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xfe" * 20)
    made["turned_badly.jpg"] = Specimen(content, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    made["turned9.png"] = Specimen(saved(RGB, "PNG", exif=exif(9)), RGB)
    return made


def transparent() -> dict[str, Specimen]:
    """Alpha channels, transparent palette entries, and single colours that are transparent."""
    rgba, seen = np.dstack([RGB, ALPHA]), on_white(RGB, ALPHA)
    made = {
        f"rgba.{name}": Specimen(saved(rgba, kind, **options), seen, 1)
        for name, kind, options in (
            ("png", "PNG", {}),
            ("webp", "WEBP", {"lossless": True, "exact": True}),
            ("tif", "TIFF", {}),
            ("ico", "ICO", {"sizes": [(WIDTH, HEIGHT)]}),
        )
    }
    both = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    made["la.png"] = Specimen(saved(both, "PNG"), on_white(grey(GREY), ALPHA), 1)
    few = Image.fromarray(RGB).quantize(8)
    index, colours = np.asarray(few), np.array(few.getpalette(), np.uint8).reshape(-1, 3)
    alpha = np.array([0, 255, 100, 255, 255, 0, 255, 255], np.uint8)
    content = saved(few, "PNG", transparency=alpha.tobytes())
    made["palette_alphas.png"] = Specimen(content, on_white(colours[index], alpha[index]), 1)
    one = on_white(colours[index], np.where(index == 2, 0, 255))
    made["palette_one.png"] = Specimen(saved(few, "PNG", transparency=2), one)
    made["palette_one.gif"] = Specimen(saved(few, "GIF", transparency=2), one)
    key = tuple(int(value) for value in RGB[4, 4])
    hidden = np.where((key == RGB).all(axis=2), 0, 255)
    made["rgb_key.png"] = Specimen(saved(RGB, "PNG", transparency=key), on_white(RGB, hidden))
    deep = _deep_rgb()
    content = png(16, 2, big_endian(deep.reshape(HEIGHT, -1)), (b"tRNS", deep[4, 4].astype(">u2").tobytes()))
    upper = deep >> 8
    made["rgb16_key.png"] = Specimen(content, on_white(upper, np.where((upper == upper[4, 4]).all(axis=2), 0, 255)))
    deep_rgba = np.dstack([deep, ALPHA.astype(np.uint16) * 257])
    content = png(16, 6, big_endian(deep_rgba.reshape(HEIGHT, -1)))
    made["rgba16.png"] = Specimen(content, on_white(upper, ALPHA), 1)
    content = png(16, 0, big_endian(DEEP), (b"tRNS", DEEP[4:5, 4].astype(">u2").tobytes()))
    made["grey16_key.png"] = Specimen(content, on_white(grey(DEEP >> 8), np.where(DEEP == DEEP[4, 4], 0, 255)))
    return made | _packed_keys()


def _packed_keys() -> dict[str, Specimen]:
    """Grey PNGs of 1, 2, 4 and 8 bits, one of their values transparent."""
    made = {}
    for depth in (1, 2, 4, 8):
        top = 2**depth - 1
        values = noise(HEIGHT, WIDTH, top=top + 1, seed=depth)
        spread = ((values[:, :, None] >> np.arange(depth)[::-1]) & 1).astype(np.uint8)
        packed = np.packbits(spread.reshape(HEIGHT, -1), axis=1)
        for key in (0, int(values.max())):
            shown = on_white(grey(values * (255 // top)), np.where(values == key, 0, 255))
            content = png(depth, 0, packed, (b"tRNS", struct.pack(">H", key)))
            made[f"grey{depth}_key{key}.png"] = Specimen(content, shown)
    return made


def scaled() -> dict[str, Specimen]:
    """More than 8 bits of grey: none is saturated."""
    upper = grey(DEEP >> 8)
    wide = Image.fromarray(DEEP)
    made = {"grey16.png": Specimen(saved(wide, "PNG"), upper), "grey16.tif": Specimen(saved(wide, "TIFF"), upper)}
    made["grey16_big_endian.tif"] = Specimen(
        saved(Image.frombytes("I;16B", wide.size, DEEP.astype(">u2").tobytes()), "TIFF"), upper
    )
    made["grey16.pgm"] = Specimen(b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + DEEP.astype(">u2").tobytes(), upper)
    dark = (DEEP >> 8).astype(np.uint16)
    made["grey16_dark.pgm"] = Specimen(b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + dark.astype(">u2").tobytes(), upper * 0)
    twelve = DEEP >> 4
    pairs = twelve.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    made["grey12.tif"] = Specimen(tiff(12, 1, packed.astype(np.uint8).tobytes()), upper)
    small = GREY.astype(np.int32)
    made["int32_of_8_bits.tif"] = Specimen(saved(Image.fromarray(small), "TIFF"), grey(GREY))
    made["int32_of_16_bits.tif"] = Specimen(saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), upper)
    for name, values in (("int32", DEEP.astype(np.int32) * 30000 - 2**30), ("float", DEEP.astype(np.float32) - 1e4)):
        share = (values - float(values.min())) / (float(values.max()) - float(values.min()))
        made[f"{name}.tif"] = Specimen(saved(Image.fromarray(values), "TIFF"), grey((share * 255).round()), 1)
    unit = (GREY / 255).astype(np.float32)
    made["float_of_1.tif"] = Specimen(saved(Image.fromarray(unit), "TIFF"), grey(GREY))
    made["float_of_255.tif"] = Specimen(saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), grey(GREY))
    holed = unit.copy()
    holed[2, 3], holed[5, 6] = np.nan, np.inf
    made["float_with_holes.tif"] = Specimen(
        saved(Image.fromarray(holed), "TIFF"), grey(np.where(np.isfinite(holed), GREY, 0))
    )
    return made


def other_colours() -> dict[str, Specimen]:
    """CMYK, CIELAB, YCbCr: other colour spaces than RGB."""
    cmyk = noise(HEIGHT, WIDTH, 4)
    ink = (255.0 - cmyk[:, :, :3]) * (255 - cmyk[:, :, 3:]) / 255
    made = {"cmyk.tif": Specimen(saved(Image.fromarray(cmyk, "CMYK"), "TIFF"), ink.round().astype(np.uint8), 1)}
    content = saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95)
    made["cmyk.jpg"] = Specimen(content, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    lightness = np.dstack([GREY, np.full_like(GREY, 128), np.full_like(GREY, 128)])
    lab = Image.frombytes("LAB", (WIDTH, HEIGHT), (lightness ^ np.array([0, 128, 128], np.uint8)).tobytes())
    relative = GREY / 255 * 100
    luminance = np.where(relative > 8, ((relative + 16) / 116) ** 3, relative / 903.3)
    curve = np.where(luminance > 0.0031308, 1.055 * luminance ** (1 / 2.4) - 0.055, 12.92 * luminance)
    made["lab.tif"] = Specimen(saved(lab, "TIFF"), grey((curve * 255).round()), 3)
    return made


def moving() -> dict[str, Specimen]:
    """Several frames or pages; the first counts."""
    frames = [Image.fromarray(noise(HEIGHT, WIDTH, 3, seed=seed)) for seed in range(3)]
    first, rest = frames[0], {"save_all": True, "append_images": frames[1:]}
    few = [frame.quantize(16) for frame in frames]
    colours = np.array(few[0].getpalette(), np.uint8).reshape(-1, 3)[np.asarray(few[0])]
    shown = np.asarray(first)
    return {
        "animated.gif": Specimen(saved(few[0], "GIF", save_all=True, append_images=few[1:]), colours, 0, True),
        "animated.webp": Specimen(saved(first, "WEBP", lossless=True, **rest), shown, 0, True),
        "animated.png": Specimen(saved(first, "PNG", **rest), shown, 0, True),
        "pages.tif": Specimen(saved(first, "TIFF", **rest), shown, 0, True),
        "sequence.avif": Specimen(
            saved(
                Image.fromarray(SMOOTH),
                "AVIF",
                quality=95,
                save_all=True,
                append_images=[Image.fromarray(255 - SMOOTH)],
            ),
            SMOOTH,
            16,
            True,
        ),
        "mpo.jpg": _mpo(),
    }


def _mpo() -> Specimen:
    """What phones write: a JPEG with a preview behind it, which is no second picture."""
    content = saved(Image.fromarray(SMOOTH), "MPO", save_all=True, append_images=[Image.fromarray(255 - SMOOTH)])
    return Specimen(content, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@cache
def whole() -> dict[str, Specimen]:
    """Every file that can be decoded, by name."""
    groups = (plain(), turned(), transparent(), scaled(), other_colours(), moving())
    return {name: specimen for group in groups for name, specimen in group.items()}


def in_memory() -> dict[str, tuple[Image.Image, np.ndarray, int]]:
    """Pillow images of the modes that no file gives, their pixels and the tolerance."""
    rgba, seen = Image.fromarray(np.dstack([RGB, ALPHA])), on_white(RGB, ALPHA)
    hue = noise(HEIGHT, WIDTH, 3, seed=4)
    hsv = [[colorsys.hsv_to_rgb(*pixel) for pixel in row] for row in hue / 255]
    y, cb, cr = np.moveaxis(hue.astype(float), 2, 0)
    ycc = np.dstack([y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)])
    both = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    few = Image.fromarray(RGB).quantize(8)
    listed = np.array(few.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(few)]
    with_alpha = few.convert("PA")
    with_alpha.putalpha(Image.fromarray(ALPHA))
    return {
        "RGBa": (rgba.convert("RGBa"), seen, 2),
        "La": (both.convert("La"), on_white(grey(GREY), ALPHA), 2),
        "PA": (with_alpha, on_white(listed, ALPHA), 1),
        "RGBX": (rgba.convert("RGBX"), RGB, 0),
        "HSV": (Image.fromarray(hue, "HSV"), (np.array(hsv) * 255).round(), 3),
        "YCbCr": (Image.fromarray(hue, "YCbCr"), ycc.clip(0, 255).round(), 2),
    }


@cache
def damaged() -> dict[str, tuple[bytes, str]]:
    """Files that cannot be decoded, and a part of what must be said of them."""
    photo = saved(Image.fromarray(SMOOTH).resize((160, 120), Image.Resampling.BICUBIC), "JPEG", quality=95)
    drawing = saved(noise(40, 40, 3), "PNG")
    return {
        "empty.jpg": (b"", "it is empty"),
        "text.jpg": (b"dear diary,\n" * 50, "no image of a kind that can be read"),
        "page.png": (b"<!doctype html><title>404</title>", "no image of a kind that can be read"),
        "vector.svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no image of a kind that can be read"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no image of a kind"),
        "random.bmp": (noise(500).tobytes(), "no image of a kind that can be read"),
        "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "pip install pillow-heif"),
        "truncated.jpg": (photo[: len(photo) // 2], "truncated"),
        "truncated.png": (drawing[: len(drawing) // 2], "truncated"),
        "header_only.jpg": (photo[:40], ""),
        "bomb.png": (png(1, 0, np.zeros((1, 1), np.uint8), size=(15000, 15000)), "15000x15000 pixels (225,000,000)"),
        "larger_bomb.png": (png(1, 0, np.zeros((1, 1), np.uint8), size=(60000, 60000)), "3600000000 pixels"),
    }
