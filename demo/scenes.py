"""Paint one of six kinds of scene from a seed: the drawing half of the demo's stand-in for photographs.

A scene is a `Canvas`: a square of RGB floats plus what a caption may truthfully say about it. Shapes are
masks over the unit square (xs to the right, ys down), textures are noise with a power-law spectrum, the
statistic that natural images share. Everything random comes from the canvas's own generator, so a seed is a
picture.
"""

from dataclasses import dataclass, field

import numpy as np

CLASSES = ("Buildings", "Forests", "Glacier", "Mountains", "Sea", "Street")
SIZE = 96
ys, xs = (np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5) / SIZE

# name: (sky at the zenith, sky at the horizon, colour of the light, words a caption may use)
LIGHTS = {
    "clear": ((0.20, 0.45, 0.85), (0.70, 0.85, 0.97), (1.00, 0.98, 0.92), ("sunny",)),
    "deep blue": ((0.04, 0.17, 0.50), (0.33, 0.58, 0.90), (1.00, 0.97, 0.90), ("sunny",)),
    "pale": ((0.52, 0.68, 0.88), (0.88, 0.92, 0.96), (0.98, 0.98, 0.96), ()),
    "white": ((0.88, 0.91, 0.94), (0.97, 0.97, 0.97), (1.00, 1.00, 1.00), ("bright",)),
    "overcast": ((0.58, 0.61, 0.65), (0.84, 0.85, 0.87), (0.84, 0.86, 0.88), ("cloudy",)),
    "storm": ((0.26, 0.29, 0.34), (0.58, 0.61, 0.65), (0.62, 0.65, 0.70), ("cloudy", "stormy")),
    "sunset": ((0.28, 0.33, 0.56), (1.00, 0.60, 0.28), (0.80, 0.56, 0.38), ("sunset",)),
    "gold": ((0.80, 0.48, 0.22), (1.00, 0.80, 0.42), (0.66, 0.46, 0.28), ("sunset", "golden")),
    "dusk": ((0.10, 0.14, 0.32), (0.48, 0.42, 0.56), (0.36, 0.37, 0.52), ("evening", "dark")),
    "night": ((0.02, 0.03, 0.08), (0.09, 0.09, 0.15), (0.20, 0.20, 0.26), ("night", "dark")),
}


@dataclass
class Canvas:
    """A picture being painted: pixels, light, and the facts its captions are made from."""

    rng: np.random.Generator
    light: str
    rgb: np.ndarray = field(default_factory=lambda: np.zeros((SIZE, SIZE, 3), np.float32))
    nouns: tuple[str, ...] = ()
    mentions: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def lay(self, mask: np.ndarray, colour, lit: bool = True) -> None:
        """Blend `colour` (RGB or an image) in where `mask` is above zero; `lit` applies the scene's light."""
        paint = np.asarray(colour, np.float32) * (np.float32(LIGHTS[self.light][2]) if lit else 1)
        self.rgb += mask[..., None].astype(np.float32) * (paint - self.rgb)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def between(self, low: float, high: float) -> float:
        """A uniform draw."""
        return float(self.rng.uniform(low, high))

    def shade(self, *colours) -> np.ndarray:
        """One of the colours, slightly off."""
        chosen = np.float32(colours[self.rng.integers(len(colours))])
        varied = chosen * self.between(0.85, 1.15) + self.rng.normal(0, 0.03, 3)
        return np.clip(varied, 0.01, 1).astype(np.float32)


def fractal(rng: np.random.Generator, slope: float = 1.2, tall: float = 1.0, wide: float = 1.0) -> np.ndarray:
    """Noise of unit spread with amplitude ~ 1/frequency**slope, drawn out by `tall` and `wide`."""
    fy, fx = np.fft.fftfreq(SIZE)[:, None] * tall, np.fft.rfftfreq(SIZE)[None] * wide
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf
    spectrum = rng.normal(size=(2, *radius.shape)) * radius ** (-slope)
    noise = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(SIZE, SIZE))
    return (noise / noise.std()).astype(np.float32)


def profile(rng: np.random.Generator, rough: float = 0.5, first: int = 2, octaves: int = 6) -> np.ndarray:
    """A jagged line over x, 0 at its lowest and 1 at its highest: straight segments summed over octaves."""
    line = np.zeros(SIZE)
    for octave in range(octaves):
        knots = first * 2**octave + 1
        line += rough**octave * np.interp(xs[0], np.linspace(0, 1, knots), rng.random(knots))
    return ((line - line.min()) / np.ptp(line)).astype(np.float32)


def below(line) -> np.ndarray:
    """Mask of what lies under a line y = line(x), with an edge one pixel soft."""
    return np.clip((ys - line) * SIZE, 0, 1)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Mask of a rectangle."""
    return ((xs >= x0) & (xs <= x1) & (ys >= y0) & (ys <= y1)).astype(np.float32)


def disc(x: float, y: float, rx: float, ry: float, ragged=0.0) -> np.ndarray:
    """Mask of an ellipse; `ragged` is a field added to its radius."""
    return np.clip((1 - np.hypot((xs - x) / rx, (ys - y) / ry) + ragged) * rx * SIZE, 0, 1)


def textured(colour, noise: np.ndarray, amount: float) -> np.ndarray:
    """The colour as an image whose brightness follows the noise."""
    return np.clip(np.float32(colour) * (1 + amount * noise[..., None]), 0, 1.2)


def plane(rng: np.random.Generator, horizon: float, slope: float = 1.0, wide: float = 1.0) -> np.ndarray:
    """Noise on a level plane seen in perspective: fine near the horizon, coarse near the viewer."""
    distance = 1 / np.maximum(ys - horizon + 0.03, 0.03)
    texture = fractal(rng, slope, 1.0, wide)
    rows = (distance * SIZE * 0.25 + rng.integers(SIZE)).astype(int) % SIZE
    columns = ((xs - 0.5) * distance * SIZE * 0.5).astype(int) % SIZE
    return texture[rows, columns] * np.minimum(1, 8 / distance)


def sky(c: Canvas, horizon: float, clouds: float = 0.6) -> None:
    """Fill the picture with sky: a gradient, perhaps clouds, a glow or a visible sun."""
    top, low = (np.float32(colour) for colour in LIGHTS[c.light][:2])
    fall = np.clip(ys / max(horizon, 0.1), 0, 1) ** c.between(0.6, 1.6)
    c.lay(np.ones_like(ys), top + fall[..., None] * (low - top), lit=False)
    if c.chance(clouds):
        cover = fractal(c.rng, c.between(1.2, 1.9), 1.0, c.between(1.0, 3.5))
        amount = np.clip(cover * c.between(0.4, 1.0) + c.between(-0.5, 0.4), 0, 1)
        shadow = 0.5 + 0.5 * np.clip(0.6 + 0.3 * fractal(c.rng, 1.5), 0, 1)
        c.lay(amount * c.between(0.5, 1), np.minimum(1, low * 1.15)[None, None] * shadow[..., None], lit=False)
    if c.light in ("sunset", "gold") and c.chance(0.75):
        sun_x, sun_y = c.between(0.15, 0.85), horizon - c.between(0.02, 0.25)
        glow = np.exp(-np.hypot(xs - sun_x, ys - sun_y) / c.between(0.08, 0.25))
        c.lay(0.9 * glow, (1.0, 0.75, 0.4), lit=False)
        c.lay(disc(sun_x, sun_y, 0.04, 0.04), (1.0, 0.95, 0.75), lit=False)


def ridge(c: Canvas, base: float, height: float, colour, haze: float, snow: float) -> None:
    """A chain of mountains: a jagged outline, slopes lit from one side, snow above the altitude `snow`."""
    outline = base - height * profile(c.rng, c.between(0.42, 0.62))
    relief = fractal(c.rng, c.between(1.5, 1.9), 1.0, c.between(1.0, 1.8))
    slopes = np.roll(relief, 2, 1) - np.roll(relief, -2, 1) + c.between(0, 0.6) * (xs - 0.5)
    shading = np.tanh(slopes * c.between(1.0, 2.2))
    surface = textured(textured(colour, shading, 0.45), fractal(c.rng, 0.9), 0.12)
    altitude = (base - ys) / max(height, 0.05) + 0.16 * fractal(c.rng, 1.2, 0.7) + 0.15 * shading
    cap = np.clip((altitude - snow) * 6, 0, 1)[..., None]
    white = textured((0.90, 0.93, 0.98), shading, 0.22)
    surface = surface + cap * (white - surface)
    low = np.float32(LIGHTS[c.light][1]) / np.maximum(np.float32(LIGHTS[c.light][2]), 0.1)
    c.lay(below(outline), surface + haze * (low - surface))


def foliage(c: Canvas, mask: np.ndarray, *colours, depth: float = 0.5) -> None:
    """Leaves in the mask: clumps of light and shade, with fine grain."""
    clumps = 0.6 * fractal(c.rng, c.between(0.9, 1.5)) + 0.6 * fractal(c.rng, 0.4)
    c.lay(mask, textured(c.shade(*colours), clumps, depth))


LEAVES = {
    "green": ((0.16, 0.32, 0.10), (0.25, 0.45, 0.12), (0.10, 0.24, 0.10)),
    "bright green": ((0.42, 0.62, 0.15), (0.35, 0.55, 0.18)),
    "autumn": ((0.75, 0.42, 0.10), (0.70, 0.55, 0.15), (0.55, 0.24, 0.08)),
    "dark": ((0.05, 0.12, 0.06), (0.08, 0.16, 0.10)),
    "winter": ((0.62, 0.62, 0.62), (0.42, 0.38, 0.34), (0.82, 0.84, 0.88)),
    "olive": ((0.34, 0.34, 0.18), (0.42, 0.42, 0.25)),
}
ROCK = ((0.42, 0.40, 0.38), (0.35, 0.30, 0.25), (0.50, 0.38, 0.28), (0.26, 0.28, 0.30), (0.58, 0.52, 0.45))
WATER = ((0.10, 0.28, 0.45), (0.06, 0.42, 0.58), (0.12, 0.50, 0.55), (0.28, 0.36, 0.40), (0.16, 0.30, 0.34))
WALLS = (
    (0.72, 0.62, 0.48),
    (0.60, 0.30, 0.22),
    (0.82, 0.78, 0.70),
    (0.50, 0.50, 0.52),
    (0.85, 0.65, 0.35),
    (0.40, 0.34, 0.30),
    (0.78, 0.50, 0.40),
    (0.62, 0.66, 0.70),
    (0.90, 0.88, 0.85),
)
GLASS = ((0.12, 0.15, 0.20), (0.25, 0.35, 0.45), (0.40, 0.55, 0.70), (0.08, 0.08, 0.10), (0.18, 0.32, 0.36))


def tree(c: Canvas, x: float, foot: float, height: float, season: str) -> None:
    """One tree standing at (x, foot): a conifer, or a crown on a trunk."""
    if c.chance(0.4):
        reach = np.clip((ys - foot + height) / height, 0, 1)
        sway = 0.75 + 0.25 * ((reach * c.between(5, 9)) % 1)
        cone = (np.abs(xs - x) < 0.22 * height * reach * sway) & (ys < foot)
        foliage(c, cone, *LEAVES["dark" if season == "green" else season])
        return
    c.lay(box(x - 0.03 * height, foot - 0.5 * height, x + 0.03 * height, foot), (0.22, 0.17, 0.13))
    crown = disc(x, foot - 0.65 * height, 0.33 * height, 0.38 * height, 0.25 * fractal(c.rng, 1.0))
    foliage(c, crown * (0.5 if season == "winter" else 1), *LEAVES[season])


def water(c: Canvas, line, horizon: float, colour) -> None:
    """Water below `line`: waves in perspective, mirroring the low sky far away and perhaps glittering."""
    waves = plane(c.rng, horizon, c.between(0.7, 1.2), c.between(2.0, 5.0))
    surface = textured(colour, waves, c.between(0.08, 0.30))
    mirror = c.between(0.2, 0.9) * np.exp(-np.clip(ys - horizon, 0, 1) / c.between(0.08, 0.6))
    low = np.float32(LIGHTS[c.light][1])
    surface = surface * np.float32(LIGHTS[c.light][2])
    surface = surface + mirror[..., None] * (low * 0.9 - surface)
    c.lay(below(line), surface, lit=False)
    if c.light in ("sunset", "gold") and c.chance(0.7):
        x = c.between(0.2, 0.8)
        path = np.exp(-np.abs(xs - x) / (0.03 + 0.15 * np.clip(ys - horizon, 0, 1))) * np.clip(0.6 + 0.5 * waves, 0, 1)
        c.lay(below(line) * path, (1.0, 0.78, 0.42), lit=False)


def wall(c: Canvas, left, right, colour, floors: int, bays: int, glass, bright: float = 1.0) -> None:
    """A facade between two upright edges (x, top, bottom), its window grid in true perspective."""
    (x0, t0, b0), (x1, t1, b1) = left, right
    across = (xs - x0) / (x1 - x0)
    top, bottom = t0 + (t1 - t0) * across, b0 + (b1 - b0) * across
    up = (ys - top) / np.where(np.abs(bottom - top) < 1e-3, 1e-3, bottom - top)
    inside = (across >= 0) & (across <= 1) & (up >= 0) & (up <= 1)
    h0, h1 = b0 - t0, b1 - t1
    along = across * h1 / np.where(inside, h0 * (1 - across) + h1 * across, 1)  # nearer edges are taller
    grain = textured(np.float32(colour) * bright, fractal(c.rng, 1.0), c.between(0.03, 0.12))
    c.lay(inside, grain)
    margin_u, margin_v = c.between(0.08, 0.32), c.between(0.08, 0.30)
    u, v = np.where(inside, along * bays, 0), np.where(inside, up * floors, 0)
    panes = inside & (np.abs(u % 1 - 0.5) < 0.5 - margin_u) & (np.abs(v % 1 - 0.5) < 0.5 - margin_v)
    lamps = c.rng.random((floors + 1, bays + 1))[v.astype(int), u.astype(int)].astype(np.float32)
    pane = np.float32(glass) * (0.6 + 0.8 * lamps[..., None]) * bright
    c.lay(panes, pane)
    if c.light in ("night", "dusk"):
        c.lay(panes & (lamps > c.between(0.4, 0.8)), (1.0, 0.82, 0.48), lit=False)


def front(c: Canvas, left, right, colour, floors: tuple, bays: tuple, bright: tuple | None = None) -> None:
    """A `wall` whose numbers of floors and bays, glass and brightness are drawn from ranges."""
    rows, columns = int(c.rng.integers(*floors)), int(c.rng.integers(*bays))
    glass = c.shade(*GLASS)
    wall(c, left, right, colour, rows, columns, glass, c.between(*bright) if bright else 1.0)


def car(c: Canvas, x: float, foot: float, width: float) -> None:
    """A car seen from behind or in front, standing on y = foot."""
    colour = c.shade((0.7, 0.1, 0.1), (0.85, 0.85, 0.85), (0.1, 0.1, 0.12), (0.2, 0.3, 0.5), (0.8, 0.65, 0.1))
    half, tall = width / 2, width * c.between(0.65, 0.9)
    c.lay(box(x - half, foot - 0.6 * tall, x + half, foot - 0.12 * tall), colour)
    c.lay(box(x - 0.8 * half, foot - tall, x + 0.8 * half, foot - 0.55 * tall), colour * 0.8)
    c.lay(box(x - 0.7 * half, foot - 0.92 * tall, x + 0.7 * half, foot - 0.6 * tall), (0.12, 0.15, 0.18))
    for side in (-1, 1):
        wheel = x + side * 0.7 * half
        c.lay(box(wheel - 0.2 * half, foot - 0.2 * tall, wheel + 0.2 * half, foot), (0.04, 0.04, 0.04))
        lamp = (0.9, 0.1, 0.08) if c.chance(0.5) else (1.0, 0.95, 0.8)
        c.lay(disc(x + side * 0.75 * half, foot - 0.42 * tall, 0.16 * half, 0.12 * half), lamp, lit=False)


def ground(c: Canvas, line, horizon: float, *colours, amount: float = 0.25) -> None:
    """Land below `line`, textured in perspective."""
    c.lay(below(line), textured(c.shade(*colours), plane(c.rng, horizon, 0.8), amount))


def hills(c: Canvas, base: float) -> None:
    """A far, low range on the horizon, to be mentioned."""
    height, colour = c.between(0.04, 0.16), c.shade(*ROCK, (0.2, 0.3, 0.25))
    ridge(c, base, height, colour, haze=c.between(0.2, 0.6), snow=c.between(0, 2))
    c.mentions.append("mountains")


def season(c: Canvas) -> str:
    """Which leaves the trees of this scene have."""
    return str(c.rng.choice(list(LEAVES), p=[0.4, 0.2, 0.12, 0.12, 0.08, 0.08]))
