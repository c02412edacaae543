"""Verb sheet: a contact sheet of a submission, to see at a glance what each class caught."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..chain.csv_format import CsvFormat
from ..chain.task import CompetitionTask
from ..core.console import say
from ..core.files import atomic_file
from ..images.decoding import DamagedImage, decode

PER_CLASS = 12
TILE = 96  # pixels
CAPTION = 18


def draw(task: CompetitionTask, number: int) -> Path:
    """Write cache/<competition>/sheet-NNN.jpg: a row per class with images evenly picked among its predictions."""
    form = CsvFormat(task)
    submissions = form.ledger
    predicted = submissions.read(submissions.path(number))
    rows = []
    for value, class_name in zip(form.labels, task.class_names, strict=True):
        found = [path for i, path in zip(form.ids, task.images.paths(), strict=True) if predicted.get(i) == value]
        rows.append((f"{class_name}: {len(found)}", found[:: max(1, len(found) // PER_CLASS)][:PER_CLASS]))
    target = task.cache / f"sheet-{number:03d}.jpg"
    with atomic_file(target) as temporary:
        _draw(rows).save(temporary, "jpeg", quality=85)
    say("sheet", str(number), f"{sum(len(paths) for _, paths in rows)} images, a row per predicted class: {target}")
    return target


def _draw(rows: list[tuple[str, list[str]]]) -> Image.Image:
    sheet = Image.new("RGB", (PER_CLASS * TILE, len(rows) * (TILE + CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for y, (caption, paths) in enumerate(rows):
        draw.text((4, y * (TILE + CAPTION) + 1), caption, fill="black", font=font)
        for x, path in enumerate(paths):
            sheet.paste(_tile(path), (x * TILE, y * (TILE + CAPTION) + CAPTION))
    return sheet


def _tile(path: str) -> Image.Image:
    """A grey one for an image that cannot be read: the policy of the competition let it through."""
    try:
        return ImageOps.fit(decode(path), (TILE, TILE))
    except DamagedImage:
        return Image.new("RGB", (TILE, TILE), "grey")
