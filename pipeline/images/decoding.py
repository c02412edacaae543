"""Image files of every kind -> 8-bit RGB, as a viewer shows them on white: the only place where files are decoded.

Plain RGB and grey files give exactly Pillow's `Image.open(path).convert("RGB")`. What that would get wrong is put
right: EXIF orientation is applied, transparency is composited on white, 16-bit and floating-point grey is scaled.
"""

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import (  # noqa: F401  (importing a plugin registers it, and no thread has to do so later)
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ..core.digests import content_digest
from ..core.errors import Unavailable
from ..recipes import MAX_PIXELS
from .damaged import DamagedImage, Unreadable, check_size

VERSION = 2  # part of the digest of pixels: raise it when the same file gives other pixels
# no EPS (it would run Ghostscript), and none of the formats that are told by a byte or two
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
KEY_SCALE = {"L;2": 85, "L;4": 17}  # Pillow scales a PNG's grey up to 8 bits, but not the one that is transparent

with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()


@dataclass(frozen=True)
class Policy:
    """What is done about images that cannot be decoded as they are.

    `fill` uses what there is of a truncated one; `fallback` goes on without those of which there is nothing.
    """

    max_pixels: int = MAX_PIXELS
    fill: bool = False
    fallback: bool = False

    def content(self) -> dict:
        """What decides pixels, JSON-able. Under a strict policy they are of whole images, whatever the limit."""
        if not (self.fill or self.fallback):
            return {"version": VERSION}
        readable = sorted(set(FORMATS) & Image.OPEN.keys())
        return {
            "version": VERSION,
            "max_pixels": self.max_pixels,
            "fill": self.fill,
            "fallback": self.fallback,
            "readable": readable,
        }


@dataclass(frozen=True)
class Decoded:
    """A picture (8-bit RGB, upright), or None for an image that there is none of."""

    image: Image.Image | None
    mode: str = ""  # of the file, Pillow's name
    format: str = ""
    several: bool = False  # frames or pages, of which this is the first
    damage: str = ""  # what is wrong with the file
    content: str = ""  # digest of the bytes that were decoded, as `core.digests.content_digest` gives it


class _Tolerance(threading.local):
    """Pillow's LOAD_TRUNCATED_IMAGES, for one thread: true only inside `with TOLERANCE.of(True)` of that thread.

    Pillow only has the one flag for the whole process; set to a plain True it would let other threads take
    damaged images for whole ones. Outside any `of` it is what the host program has set.
    """

    host, mine = False, None

    def __bool__(self) -> bool:
        return bool(self.host if self.mine is None else self.mine)

    @contextlib.contextmanager
    def of(self, tolerant: bool) -> Iterator[None]:
        if ImageFile.LOAD_TRUNCATED_IMAGES is not self:
            type(self).host = bool(ImageFile.LOAD_TRUNCATED_IMAGES)
            ImageFile.LOAD_TRUNCATED_IMAGES = self
        self.mine = tolerant
        try:
            yield
        finally:
            self.mine = None


TOLERANCE = _Tolerance()


def decode(source, draft_size: int | None = None) -> Image.Image:
    """`read` under the default policy: the picture only."""
    return read(source, draft_size).image


def read(source, draft_size: int | None = None, policy: Policy = Policy(), name: str | None = None) -> Decoded:  # noqa: B008
    """An image as 8-bit RGB; `source` is a path, a file's bytes, or an opened Pillow image.

    DamagedImage, with `name` (default: the path), when it cannot be decoded, or not without filling under a policy
    that does not fill. With `draft_size` a JPEG is decoded at 1/2, 1/4 or 1/8 of its size (in the frequency domain,
    far faster for photographs), as long as its shorter side keeps at least that many pixels.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "in memory")
    if isinstance(source, (str, Path)):
        source = content_of(source, policy)
    content = content_digest(source) if isinstance(source, bytes) else ""
    try:
        return replace(_decoded(source, draft_size, policy, name, tolerant=False), content=content)
    except DamagedImage as damage:
        damage.content = content
        if not policy.fill or not isinstance(source, bytes):
            raise
        filled = _filled(source, draft_size, policy, name)
        if filled is None:
            raise
        return replace(filled, damage=damage.why, content=content)


def content_of(path: str | Path, policy: Policy = Policy()) -> bytes:  # noqa: B008
    """The bytes of a file; DamagedImage when it has more than any image that is allowed can need."""
    name = str(path)
    try:
        with open(path, "rb") as file:
            check_size(name, os.fstat(file.fileno()).st_size, policy.max_pixels)
            return file.read()
    except OSError as error:
        raise Unreadable(name, error.strerror or str(error)) from None


def _decoded(source: bytes | Image.Image, draft_size, policy: Policy, name: str, tolerant: bool) -> Decoded:
    try:
        with TOLERANCE.of(tolerant), _opened(source, policy) as image:
            width, height = image.size
            if width * height > policy.max_pixels:
                raise Image.DecompressionBombError(f"{width}x{height} pixels ({width * height:,})")
            if draft_size:
                image.draft("RGB", (draft_size, draft_size))
            mode = image.mode
            picture = _upright(to_rgb(image), image)
            return Decoded(picture, mode, image.format or "", _several(image))
    except Image.DecompressionBombError as error:
        why = f"{error}; the limit is max_pixels: {policy.max_pixels}, which a recipe may raise"
    except UnidentifiedImageError:
        why = _unknown_kind(source)
    except MemoryError:
        raise Unavailable(f"{name}: not enough memory to decode it; use fewer WORKERS, or a lower max_pixels") from None
    except Exception as error:  # a damaged file fails in many ways, and all of them mean: not usable
        why = str(error) or type(error).__name__
    raise DamagedImage(name, why)


def _opened(source: bytes | Image.Image, policy: Policy) -> contextlib.AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return contextlib.nullcontext(source)
    if Image.MAX_IMAGE_PIXELS and Image.MAX_IMAGE_PIXELS < policy.max_pixels:
        Image.MAX_IMAGE_PIXELS = policy.max_pixels  # Pillow's own limit must not be below the one asked for
    return Image.open(io.BytesIO(source), formats=[kind for kind in FORMATS if kind in Image.OPEN])


def _filled(source: bytes, draft_size, policy: Policy, name: str) -> Decoded | None:
    """What there is of a truncated image, the rest as Pillow leaves it; None when not even a part is there."""
    try:
        filled = _decoded(source, draft_size, policy, name, tolerant=True)
    except DamagedImage:
        return None
    one_colour = all(low == high for low, high in filled.image.getextrema())
    return None if one_colour else filled


def _unknown_kind(content: bytes) -> str:
    if not content:
        return "it is empty"
    if content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS:
        return "a HEIC image, for which Pillow needs one package more: pip install pillow-heif; or convert it to JPEG"
    return f"no image of a kind that can be read ({', '.join(kind for kind in FORMATS if kind in Image.OPEN)})"


def _several(image: Image.Image) -> bool:
    """Whether a file holds more pictures than the first. MPO's others are views and previews of the same one."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first frame, which was decoded
        return False


def _upright(picture: Image.Image, image: Image.Image) -> Image.Image:
    """`picture` turned as the EXIF orientation of `image` says (TIFFs were turned while they were loaded)."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata of a whole image: no viewer would turn it either
        return picture
    if orientation not in range(2, 9):
        return picture  # Pillow would copy it
    picture.info = {}  # Pillow would write all metadata again, and cannot write some that cameras do
    picture.getexif()[ExifTags.Base.Orientation] = int(orientation)
    return ImageOps.exif_transpose(picture)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB: transparency composited on white, 16-bit, 32-bit and float grey scaled to 8 bits."""
    packing = image.tile[0].args if getattr(image, "tile", None) else None
    packing = packing[0] if isinstance(packing, tuple) else packing
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.mode == "RGB" and image.format == "JPEG":
        return image  # a copy of a large photograph takes as long as a third of its decoding
    if not image.has_transparency_data:
        return image.convert("RGB")
    key = image.info.get("transparency")
    if isinstance(key, int) and packing in KEY_SCALE:
        image = image.copy()  # somebody else's image stays as it is
        image.info["transparency"] = key * KEY_SCALE[packing]
    elif isinstance(key, tuple) and packing == "RGB;16B":
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)  # as the pixels are
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """Modes I;16, I and F -> L, or LA where one grey value is transparent.

    16 bits are reduced to their upper 8, as Pillow does with 16-bit RGB. Modes I and F do not say what white is: it
    is the smallest of 1 (F only), 255 and 65535 that no value exceeds; with other values the image's own range is
    stretched. What is not a number is black.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, (16,))
        grey = values >> (4 if bits[0] == 12 else 8)
    elif image.format == "PPM" and image.mode == "I":
        grey = values >> 8  # Pillow has scaled it to 16 bits, whatever its white was
    else:
        grey = _scaled(values)
    picture = Image.fromarray(grey.astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        picture.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return picture


def _scaled(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = float(values[finite].min()), float(values[finite].max())
    known = np.where(finite, values, low).astype(np.float64)
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        grey = known * 255
    elif low >= 0 and high <= 255:
        grey = known
    elif low >= 0 and high <= 65535:
        return np.where(finite, known // 256, 0)
    else:
        grey = (known - low) * (255 / (high - low) if high > low else 0)
    return np.where(finite, grey.round(), 0)
