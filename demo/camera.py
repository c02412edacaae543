"""From a painted canvas to a photograph: framing, weather, tone, style, and the loss of detail on the way."""

import io

import numpy as np
from painters import PAINTERS
from PIL import Image
from scenes import CLASSES, LIGHTS, SIZE, Canvas, fractal, xs, ys

STYLES = ("photo", "sketch", "drawing", "art", "rendering", "video game")


def frame(c: Canvas) -> None:
    """Tilt, zoom, stretch, shift and mirror, as a hand-held camera would."""
    zoom = c.between(1.08, 1.5)  # never 1: a tilted frame would show past the edges
    tilt = np.deg2rad(c.rng.normal(0, 3) * (3 if c.chance(0.1) else 1))
    stretch = c.between(0.85, 1.18)
    slack = 0.5 * (1 - 1 / zoom) * SIZE
    scale = SIZE / 2 + np.array([c.between(-slack, slack), c.between(-slack, slack)])
    turn = np.array([[np.cos(tilt) * stretch, -np.sin(tilt)], [np.sin(tilt), np.cos(tilt) / stretch]]) / zoom
    shift = scale - turn @ (SIZE / 2, SIZE / 2)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    x = turn[0, 0] * columns + turn[0, 1] * rows + shift[0]
    y = turn[1, 0] * columns + turn[1, 1] * rows + shift[1]
    c.rgb = c.rgb[np.clip(y, 0, SIZE - 1).astype(int), np.clip(x, 0, SIZE - 1).astype(int)]
    if c.chance(0.5):
        c.rgb = c.rgb[:, ::-1]
    if zoom > 1.3:
        c.words += ["cropped", "close-up"]


def weather(c: Canvas) -> None:
    """Fog, rain, snow or grime, now and then."""
    kind = c.rng.choice(["none", "fog", "rain", "snow", "dirt"], p=[0.76, 0.1, 0.05, 0.04, 0.05])
    if kind == "fog":
        veil = np.clip(c.between(0.15, 0.6) + 0.4 * (0.5 - ys) + 0.08 * fractal(c.rng, 1.8), 0, 0.9)
        c.lay(veil, np.float32(LIGHTS[c.light][1]) * 0.95, lit=False)
        c.words += ["foggy", "hard to see"]
    elif kind == "rain":
        slant = c.between(-0.2, 0.2)
        streaks = np.roll(fractal(c.rng, 0.3, 8.0, 0.6), int(slant * SIZE), 1) > 1.6
        c.lay(streaks * c.between(0.15, 0.4), (0.8, 0.83, 0.87), lit=False)
        c.rgb *= 0.85
        c.words += ["rainy"]
    elif kind == "snow":
        c.lay((fractal(c.rng, 0.3) > c.between(1.7, 2.4)) * 0.9, (0.95, 0.96, 0.98), lit=False)
        c.words += ["snowy"]
    elif kind == "dirt":
        c.rgb *= 1 - c.between(0.1, 0.25) * np.clip(fractal(c.rng, 1.2), 0, 2)[..., None]
        c.words += ["dirty"]


def develop(c: Canvas) -> None:
    """Exposure, contrast, colour balance, vignette and grain; some pictures are monochrome."""
    rgb = np.clip(c.rgb, 0, 1.2) * c.between(0.75, 1.25) * np.exp(c.rng.normal(0, 0.04, 3))
    rgb = np.clip(rgb, 0, 1) ** c.between(0.75, 1.3)
    rgb = 0.5 + (rgb - 0.5) * c.between(0.8, 1.35)
    grey = rgb @ np.array([0.3, 0.59, 0.11])
    if c.chance(0.07):
        sepia = np.array([1.08, 1.0, 0.86]) if c.chance(0.4) else np.ones(3)
        rgb = grey[..., None] * sepia
        c.words += ["black and white"]
    else:
        rgb = grey[..., None] + (rgb - grey[..., None]) * c.between(0.45, 1.4)
    if c.chance(0.3):
        rgb *= 1 - c.between(0.2, 0.7) * (np.hypot(xs - 0.5, ys - 0.5) ** 2)[..., None] * 2
    c.rgb = np.clip(rgb + c.rng.normal(0, c.between(0.0, 0.035), rgb.shape), 0, 1)
    mean = float(c.rgb.mean())
    c.words += ["dark"] * (mean < 0.27) + ["bright"] * (mean > 0.62)


def stylise(c: Canvas) -> str:
    """Turn a few pictures into a sketch, drawing, painting or game screen; name the medium for captions."""
    style = c.rng.choice(STYLES, p=[0.93] + [0.014] * 5)
    edges = np.hypot(*np.gradient(c.rgb.mean(2)))[..., None]
    if style == "sketch":
        c.rgb = np.repeat(1 - np.clip(edges * 7, 0, 1), 3, axis=2)
    elif style == "drawing":
        c.rgb = np.clip(np.round(c.rgb * 4) / 4 + 0.1 - edges * 5, 0, 1)
    elif style == "art":
        c.rgb = np.clip(0.5 + 1.5 * (c.rgb - 0.5) + 0.08 * fractal(c.rng, 0.7, 1, 3)[..., None], 0, 1)
    elif style in ("rendering", "video game"):
        levels, block = (6, 1) if style == "rendering" else (8, 4)
        c.rgb = np.round(c.rgb[::block, ::block].repeat(block, 0).repeat(block, 1) * levels) / levels
    return str(style)


def photograph(label: int, seed: int) -> tuple[Image.Image, dict]:
    """The picture of class `label` that belongs to a seed, sharp, and the facts for its captions."""
    rng = np.random.default_rng((seed, label))
    dark = 0.05 if CLASSES[label] in ("Buildings", "Street") else 0.01
    chances = [0.28 - 2 * dark, 0.12, 0.14, 0.08, 0.18, 0.08, 0.07, 0.05, dark, dark]
    light = rng.choice(list(LIGHTS), p=chances)
    c = Canvas(rng, str(light))
    c.words += LIGHTS[c.light][3]
    paint = PAINTERS[CLASSES[label]]
    paint[rng.integers(len(paint))](c)
    for step in (frame, weather, develop):
        step(c)
    medium = stylise(c)
    facts = {"label": label, "nouns": c.nouns, "words": c.words, "mentions": c.mentions, "medium": medium}
    return Image.fromarray((c.rgb * 255).astype(np.uint8)), facts


def degrade(image: Image.Image, side: int, size: int) -> Image.Image:
    """Reduce to `side` pixels and enlarge to `size`: all detail beyond `side` is gone."""
    return image.resize((side, side), Image.Resampling.BOX).resize((size, size), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
