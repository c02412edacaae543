"""Verb sheet: a contact sheet of a submission, to see at a glance what each class caught."""

import contextlib
import functools
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..chain.csv_format import CsvFormat
from ..chain.task import CompetitionTask
from ..core.console import say, warn
from ..core.files import atomic_file
from ..images.decoding import DamagedImage, Policy
from ..images.listing import Images
from . import past

PER_CLASS = 12
TILE = 96  # pixels
CAPTION = 18
TALL = 60  # rows below each other
FONTS = (  # as systems have them; the first that has all letters of a text is taken
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "PingFang.ttc", "msyh.ttc", "malgun.ttf", "YuGothR.ttc"),
    *("NotoSansArabic-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "Nirmala.ttf"),
)


def draw(task: CompetitionTask, number: int | None) -> Path:
    """Write cache/<competition>/sheet-NNN.jpg: a row per class with images evenly picked among its predictions.

    Of submission `number`, or the newest.
    """
    submissions = CsvFormat(task).ledger
    number = number or submissions.newest()
    task = past.with_its_images(task, number)
    form = CsvFormat(task)
    predicted = submissions.read(submissions.path(number))
    rows = []
    for value, class_name in zip(form.labels, task.class_names, strict=True):
        found = [row for row, i in enumerate(form.ids) if predicted.get(i) == value]
        rows.append((f"{class_name}: {len(found)}", found))
    ids = task.images.ids
    unknown = _no_font_draws("".join(c + "".join(Path(ids[row]).name for row in shown) for c, shown in rows))
    if unknown:
        warn(f"no font here has the letters {unknown[:20]}: boxes stand for them; install Noto Sans of that script")
    target = task.cache / f"sheet-{number:03d}.jpg"
    with atomic_file(target) as temporary:
        _draw(rows, task.images, task.policy).save(temporary, "jpeg", quality=85)
    say("sheet", str(number), f"{len(rows)} classes, a row of images each: {target}")
    return target


def _draw(rows: list[tuple[str, list[int]]], images: Images, policy: Policy = Policy()) -> Image.Image:  # noqa: B008
    """Rows below each other; of many classes in columns, with fewer images each, so that a viewer can open it."""
    columns = -(-len(rows) // TALL)
    each = max(3, PER_CLASS // columns)
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * each * TILE, lines * (TILE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (caption, shown) in enumerate(rows):
        left, top = number // lines * each * TILE, number % lines * (TILE + CAPTION)
        font = _font(caption, 13)
        draw.text((left + 4, top + 1), _cut(caption, font, each * TILE - 8), fill="black", font=font)
        for x, row in enumerate(shown[:: max(1, len(shown) // each)][:each]):
            at = left + x * TILE, top + CAPTION
            sheet.paste(_tile(images, row, policy), at)
            name = Path(images.ids[row]).name
            small = _font(name, 9)
            name = _cut(name, small, TILE - 4)
            draw.rectangle((at[0], at[1] + TILE - 12, at[0] + small.getlength(name) + 3, at[1] + TILE), fill="white")
            draw.text((at[0] + 2, at[1] + TILE - 12), name, fill="black", font=small)
    return sheet


@functools.cache
def _fonts(size: int) -> list[ImageFont.FreeTypeFont]:
    """Those that know more than ASCII; Pillow's own draws other letters as boxes."""
    found = []
    for name in FONTS:
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    with contextlib.suppress(ImportError):
        from matplotlib import font_manager

        found.append(ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size))
    return found or [ImageFont.load_default(size)]


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has all letters of a text, else the one that has most."""
    return max(_fonts(size), key=lambda font: sum(_draws(font, letter) for letter in set(text)))


@functools.cache
def _draws(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether it is drawn otherwise than what no font has."""
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))


def _no_font_draws(text: str) -> str:
    return "".join(letter for letter in sorted(set(text)) if not any(_draws(font, letter) for font in _fonts(13)))


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of a text as fits."""
    if font.getlength(text) <= width:
        return text
    fits = next(n for n in range(len(text), -1, -1) if font.getlength(text[:n] + "...") <= width or not n)
    return text[:fits] + "..."


def _tile(images: Images, row: int, policy: Policy) -> Image.Image:
    """A grey one for an image that cannot be read: the policy of the competition let it through."""
    try:
        picture = images.open(row, policy=policy).image
    except DamagedImage:
        picture = None
    return ImageOps.fit(picture, (TILE, TILE)) if picture else Image.new("RGB", (TILE, TILE), "grey")
