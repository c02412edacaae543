"""Six scenes, each in several compositions: a painter fills a `Canvas` and notes what a caption may say."""

import numpy as np
from scenes import (
    GLASS,
    LEAVES,
    LIGHTS,
    ROCK,
    WALLS,
    WATER,
    Canvas,
    below,
    box,
    car,
    disc,
    foliage,
    fractal,
    front,
    ground,
    hills,
    plane,
    profile,
    ridge,
    season,
    sky,
    textured,
    tree,
    wall,
    water,
    xs,
    ys,
)

GRASS = ((0.30, 0.42, 0.14), (0.42, 0.46, 0.20), (0.22, 0.34, 0.12), (0.55, 0.50, 0.28))
PAVING = ((0.45, 0.44, 0.43), (0.58, 0.55, 0.52), (0.34, 0.34, 0.36), (0.62, 0.56, 0.46))
BARK = ((0.20, 0.15, 0.11), (0.30, 0.26, 0.22), (0.12, 0.10, 0.09), (0.65, 0.63, 0.60), (0.40, 0.26, 0.16))
SAND = ((0.80, 0.70, 0.52), (0.66, 0.56, 0.42), (0.55, 0.48, 0.40), (0.85, 0.80, 0.70))
ICE = ((0.86, 0.92, 0.96), (0.72, 0.86, 0.93), (0.90, 0.92, 0.92), (0.62, 0.80, 0.90), (0.75, 0.78, 0.80))


# ---------------------------------------------------------------------------------------------- Buildings


def corner(c: Canvas) -> None:
    """One block seen at its corner, two facades running away."""
    horizon = c.between(0.72, 1.0)
    sky(c, horizon)
    edge, roof, foot = c.between(0.3, 0.7), c.between(-0.15, 0.25), c.between(0.85, 1.1)
    left, right = edge - c.between(0.2, 0.75), edge + c.between(0.2, 0.75)
    drop = c.between(0.05, 0.35)
    colour, glass = c.shade(*WALLS), c.shade(*GLASS)
    floors, bays = int(c.rng.integers(3, 12)), int(c.rng.integers(3, 9))
    ground(c, horizon, horizon - 0.1, *PAVING, *GRASS)
    dark = c.between(0.45, 0.8)
    wall(c, (left, roof + drop, foot - 0.3 * drop), (edge, roof, foot), colour, floors, bays, glass, dark)
    wall(c, (edge, roof, foot), (right, roof + drop, foot - 0.3 * drop), colour, floors, bays, glass)
    if c.chance(0.4):
        leaves = season(c)
        for _ in range(c.rng.integers(1, 4)):
            tree(c, c.between(0, 1), 1.02, c.between(0.2, 0.45), leaves)
        c.mentions.append("trees")
    c.nouns = ("building", "building", "buildings", "tower")
    c.words += ["one", "large"]


def skyline(c: Canvas) -> None:
    """Many buildings side by side, in two or three rows, over water, a park or nothing."""
    horizon = c.between(0.6, 0.95)
    sky(c, horizon)
    if c.chance(0.25):
        hills(c, horizon)
    for row in range(c.rng.integers(1, 4)):
        x, haze = c.between(-0.2, 0), max(0.0, 0.45 - 0.25 * row)
        while x < 1:
            width, roof = c.between(0.06, 0.24), horizon - c.between(0.12, 0.62) * (1 - 0.2 * row)
            low = np.float32(LIGHTS[c.light][1])
            colour = c.shade(*WALLS, *GLASS) * (1 - haze) + haze * low
            left, right = (x, roof, horizon + 0.02), (x + width, roof, horizon + 0.02)
            front(c, left, right, colour, (4, 14), (2, 6), (0.5, 1.1))
            if c.chance(0.12):
                mast = x + width / 2
                c.lay(box(mast - 0.008, roof - c.between(0.05, 0.2), mast + 0.008, roof), colour)
            x += width + max(0.0, c.between(-0.05, 0.08))
    if c.chance(0.4):
        water(c, horizon, horizon, c.shade(*WATER))
        c.mentions.append("water")
    else:
        ground(c, horizon, horizon - 0.1, *PAVING, *GRASS)
    c.nouns = ("city", "skyline", "urban area", "houses", "buildings")
    c.words += ["many", "small"]


def facade(c: Canvas) -> None:
    """A wall of windows that fills the picture, seen head-on or slightly from the side."""
    sky(c, 1)
    slant = c.between(-0.25, 0.25)
    roof = c.between(-0.5, 0.12)
    left, right = (-0.1, roof - slant, 1.2), (1.1, roof + slant, 1.2 - 0.5 * slant)
    front(c, left, right, c.shade(*WALLS, *GLASS), (2, 10), (2, 10))
    if c.chance(0.4):
        c.lay(box(0, c.between(0.75, 0.9), 1, 1), c.shade(*PAVING) * 0.7)
    c.nouns = ("windows", "windows", "window", "building")
    c.words += ["close-up", "cropped"]


def towers(c: Canvas) -> None:
    """Towers seen from their feet: the sides lean together towards the top."""
    sky(c, 1.2, 0.5)
    for _ in range(c.rng.integers(1, 4)):
        x, width, lean = c.between(-0.1, 0.8), c.between(0.2, 0.5), c.between(-0.1, 0.1)
        top, taper = c.between(-0.3, 0.3), c.between(0.4, 0.9)
        rise = np.clip((ys - top) / (1.1 - top), 0, 1)
        middle = x + width / 2 + lean * (1 - rise) + 0.3 * (0.5 - x) * (1 - rise)
        half = width / 2 * (taper + (1 - taper) * rise)
        inside = (np.abs(xs - middle) < half) & (ys > top)
        floors, bays = c.rng.integers(8, 24), c.rng.integers(2, 7)
        u, v = ((xs - middle) / half + 1) / 2 * bays, np.sqrt(rise) * floors
        lit_side = np.where(xs > middle + half * c.between(-0.6, 0.6), 1.0, c.between(0.4, 0.8))
        panes = (u % 1 > c.between(0.15, 0.4)) & (v % 1 > c.between(0.15, 0.5))
        frame, glass = c.shade(*WALLS), c.shade(*GLASS)
        c.lay(inside, np.where(panes[..., None], glass, frame) * lit_side[..., None])
        if c.light in ("night", "dusk"):
            c.lay(inside & panes & (fractal(c.rng, 0.1) > 0.4), (1.0, 0.85, 0.5), lit=False)
    c.nouns = ("tower", "towers", "city", "buildings")
    c.words += ["large"]


def house(c: Canvas) -> None:
    """A house with a pitched roof on a lawn, trees about it."""
    horizon = c.between(0.6, 0.85)
    sky(c, horizon)
    leaves = season(c)
    for _ in range(c.rng.integers(0, 5)):
        tree(c, c.between(0, 1), horizon + 0.03, c.between(0.25, 0.6), leaves)
    ground(c, horizon, horizon - 0.1, *GRASS, *PAVING)
    x0, x1, eaves = c.between(0.0, 0.3), c.between(0.65, 1.0), c.between(0.3, 0.5)
    foot, peak = horizon + c.between(0.0, 0.1), eaves - c.between(0.08, 0.25)
    front(c, (x0, eaves, foot), (x1, eaves, foot), c.shade(*WALLS), (1, 4), (2, 7))
    gable = c.chance(0.5)
    inset = 0.0 if gable else c.between(0.05, 0.15)
    middle = (x0 + x1) / 2
    fall = np.clip((ys - peak) / (eaves - peak), 0, 1)
    half = (x1 - x0 + 0.06) / 2 * (fall if gable else 1 - inset * 2 * (1 - fall))
    roof = (np.abs(xs - middle) < half) & (ys > peak) & (ys < eaves)
    tiles = c.shade((0.45, 0.18, 0.12), (0.25, 0.24, 0.26), (0.5, 0.35, 0.25))
    c.lay(roof, textured(tiles, fractal(c.rng, 0.8), 0.1))
    if c.chance(0.3):
        tree(c, c.between(0, 1), 1.0, c.between(0.3, 0.5), leaves)
    c.nouns = ("house", "house", "houses", "building")
    c.mentions += ["trees", "grass"]
    c.words += ["one", "small"]


def castle(c: Canvas) -> None:
    """Old masonry: a nave or keep between towers with spires, domes or battlements."""
    horizon = c.between(0.75, 1.0)
    sky(c, horizon)
    stone, glass = c.shade(*WALLS[:6]), c.shade(*GLASS[3:], (0.1, 0.08, 0.06))
    left, right, roof = c.between(0.05, 0.3), c.between(0.6, 0.95), c.between(0.3, 0.55)
    floors, bays = int(c.rng.integers(1, 5)), int(c.rng.integers(3, 8))
    wall(c, (left, roof, horizon + 0.05), (right, roof, horizon + 0.05), stone, floors, bays, glass)
    for x in c.rng.uniform(left, right, c.rng.integers(1, 4)):
        half, top = c.between(0.05, 0.13), roof - c.between(0.02, 0.3)
        shade = stone * c.between(0.8, 1.1)
        floors, bays = int(c.rng.integers(3, 7)), int(c.rng.integers(1, 3))
        wall(c, (x - half, top, horizon + 0.06), (x + half, top, horizon + 0.06), shade, floors, bays, glass)
        cap = c.rng.integers(3)
        colour = c.shade((0.3, 0.32, 0.34), (0.25, 0.42, 0.36), (0.5, 0.25, 0.16), (0.7, 0.6, 0.4))
        if cap == 0:
            spire = c.between(0.1, 0.3)
            c.lay((np.abs(xs - x) < half * (ys - top + spire) / spire) & (ys < top), colour)
        elif cap == 1:
            c.lay(disc(x, top, half, half * 1.1) * (ys < top), colour)
        else:
            c.lay(box(x - half, top - 0.04, x + half, top) * ((xs * 40 % 2) > 1), stone)
    ground(c, horizon, horizon - 0.2, *GRASS, *PAVING)
    c.nouns = ("church", "castle", "architecture", "architectural structure")


# ------------------------------------------------------------------------------------------------ Forests


def trunks(c: Canvas) -> None:
    """Inside a wood: trunks at several depths against far foliage, a floor of leaves, perhaps a path."""
    leaves, floor = season(c), c.between(0.55, 0.95)
    pale = np.float32(LIGHTS[c.light][1])
    c.lay(np.ones_like(ys), pale, lit=False)
    foliage(c, np.clip(c.between(0.2, 1.0) + 0.5 * fractal(c.rng, 1.0), 0, 1), *LEAVES[leaves], depth=0.6)
    line = floor + 0.04 * (profile(c.rng) - 0.5)
    ground(c, line, floor - 0.15, *LEAVES[leaves], (0.32, 0.24, 0.16), amount=0.4)
    if c.chance(0.3):
        middle = c.between(0.35, 0.65) + c.between(-0.4, 0.4) * (ys - floor) ** 2
        path = (np.abs(xs - middle) < 0.02 + 0.5 * (ys - floor)) & (ys > floor)
        c.lay(path * 0.8, textured(c.shade((0.55, 0.47, 0.38), (0.5, 0.5, 0.48)), plane(c.rng, floor), 0.15))
        c.mentions.append("path")
    bark = c.shade(*BARK)
    for near in np.sort(c.rng.uniform(0, 1, c.rng.integers(6, 30))):
        half = 0.006 + c.between(0.01, 0.05) * near**2
        x, lean = c.between(0, 1), c.between(-0.08, 0.08)
        stem = np.abs(xs - x - lean * (ys - 0.5)) < half * (1 + 0.5 * np.clip(ys - floor, 0, 1))
        colour = bark + 0.5 * (1 - near) * (0.7 * pale - bark)
        c.lay(stem & (ys < floor + 0.35 * near), textured(colour, 0.5 * fractal(c.rng, 0.7, 4.0), 0.3))
    if c.chance(0.6):
        foliage(c, np.clip((0.3 - ys) * 3 + 0.6 * fractal(c.rng, 0.9), 0, 1), *LEAVES[leaves], depth=0.6)
    c.nouns = ("trees", "woods", "tree trunks", "dense forest", "forest")


def thicket(c: Canvas) -> None:
    """Nothing but leaves: bushes and crowns in light and shade, or a canopy from above."""
    leaves = season(c)
    c.lay(np.ones_like(ys), c.shade(*LEAVES["dark"]))
    foliage(c, np.ones_like(ys), *LEAVES[leaves], depth=0.6)
    for _ in range(c.rng.integers(4, 18)):
        size = c.between(0.08, 0.3)
        crown = disc(c.between(0, 1), c.between(0, 1), size, size, 0.3 * fractal(c.rng, 0.9))
        foliage(c, crown * c.between(0.4, 1), *LEAVES[leaves if c.chance(0.8) else season(c)], depth=0.5)
    if c.chance(0.5):
        gaps = np.clip(0.8 * fractal(c.rng, 0.8) - c.between(1.0, 2.0) + (0.5 - ys), 0, 1)
        c.lay(gaps, np.float32(LIGHTS[c.light][1]), lit=False)
    for _ in range(c.rng.integers(0, 6)):
        x, lean = c.between(0, 1), c.between(-0.3, 0.3)
        c.lay((np.abs(xs - x - lean * (ys - 0.5)) < c.between(0.005, 0.02)) * 0.9, (0.16, 0.13, 0.10))
    c.nouns = ("foliage", "leaves", "trees", "dense forest")
    c.words += ["close-up"]


def treeline(c: Canvas) -> None:
    """The edge of a wood across the picture, with sky above and grass, snow or water in front."""
    edge = c.between(0.6, 0.95)
    sky(c, edge)
    if c.chance(0.25):
        ridge(c, edge, c.between(0.3, 0.5), c.shade(*ROCK), c.between(0.1, 0.5), c.between(0.5, 1.5))
        c.mentions.append("mountains")
    leaves = season(c)
    tops = edge - c.between(0.25, 0.6) * (0.6 + 0.4 * profile(c.rng, 0.8, 6, 4))
    foliage(c, below(tops), *LEAVES[leaves])
    for x in c.rng.uniform(0, 1, c.rng.integers(4, 14)):
        tree(c, x, edge + 0.03, c.between(0.3, 0.75), leaves if c.chance(0.75) else season(c))
    if c.chance(0.2):
        water(c, edge, edge, c.shade(*WATER))
        c.mentions.append("lake")
    else:
        ground(c, edge, edge - 0.1, *(((0.85, 0.87, 0.9),) if leaves == "winter" else GRASS), amount=0.3)
    c.nouns = ("forest landscape", "pine trees", "woodland", "forest")


# ------------------------------------------------------------------------------------------------ Glacier


def crevasses(c: Canvas, mask: np.ndarray, tall: float, wide: float) -> None:
    """Ice in the mask: pale blocks, blue cracks where the noise crosses zero, dirt here and there."""
    blocks = fractal(c.rng, c.between(1.0, 1.6), tall, wide)
    cracks = np.exp(-np.abs(blocks) / c.between(0.06, 0.3))
    ice = textured(c.shade(*ICE), fractal(c.rng, 0.9, tall, wide), c.between(0.05, 0.16))
    blue = c.shade((0.25, 0.55, 0.78), (0.35, 0.62, 0.75), (0.40, 0.50, 0.60), (0.50, 0.72, 0.86))
    c.lay(mask, ice + (c.between(0.3, 0.9) * cracks)[..., None] * (blue - ice))
    if c.chance(0.45):
        dirt = np.clip(fractal(c.rng, 1.5, tall, wide) - c.between(0.3, 1.2), 0, 1)
        c.lay(mask * dirt, c.shade((0.35, 0.32, 0.30), (0.25, 0.22, 0.20)))
        c.words.append("dirty")


def ice_front(c: Canvas) -> None:
    """A wall of ice standing in water below dark mountains, with floes."""
    shore = c.between(0.55, 0.9)
    sky(c, shore - 0.3)
    for haze in (0.4, 0.1)[: c.rng.integers(0, 3)]:
        ridge(c, shore - 0.1, c.between(0.25, 0.55), c.shade(*ROCK), haze, c.between(0.3, 1.1))
        c.mentions.append("mountains")
    top = shore - c.between(0.15, 0.45) * (0.7 + 0.3 * profile(c.rng, 0.7, 5))
    crevasses(c, below(top) * (ys < shore + 0.02), c.between(1.5, 4.0), 1.0)
    water(c, shore, shore - 0.1, c.shade(*WATER, (0.45, 0.60, 0.62), (0.55, 0.62, 0.62)))
    for _ in range(c.rng.integers(0, 12)):
        y = c.between(shore + 0.03, 1)
        size = 0.25 * (y - shore) + 0.01
        c.lay(disc(c.between(0, 1), y, size, 0.3 * size, 0.2 * fractal(c.rng, 1.0)), c.shade(*ICE))
    c.mentions.append("water")
    c.nouns = ("ice wall", "ice", "glacier", "glacier")


def ice_river(c: Canvas) -> None:
    """A valley glacier: a tongue of ice, striped by moraines, flowing from snowy peaks towards the viewer."""
    head = c.between(0.25, 0.5)
    sky(c, head)
    ridge(c, head + 0.12, c.between(0.2, 0.4), c.shade(*ROCK), c.between(0.1, 0.4), c.between(-0.1, 0.6))
    ground(c, head + 0.05, head - 0.2, *ROCK, amount=0.4)
    ridge(c, 1.0, c.between(0.3, 0.6), c.shade(*ROCK), 0.05, c.between(0.6, 1.4))
    down = np.clip(ys - head, 0, 1)
    middle = c.between(0.3, 0.7) + c.between(-0.5, 0.5) * down
    middle += c.between(-0.2, 0.2) * np.sin(down * c.between(3, 9))
    half = 0.08 + c.between(0.2, 1.2) * down ** c.between(0.8, 1.6)
    half *= 1 + 0.2 * profile(c.rng, 0.5, 3)[:, None]
    tongue = (np.abs(xs - middle) < half) & (ys > head + 0.04)
    crevasses(c, tongue, c.between(1.0, 2.0), c.between(1.0, 3.0))
    if c.chance(0.6):
        stripe = np.abs((xs - middle) / np.maximum(half, 0.02) - c.between(-0.5, 0.5)) < c.between(0.05, 0.15)
        c.lay(tongue * stripe * 0.8, c.shade(*ROCK))
    c.mentions += ["mountains", "rocks"]
    c.nouns = ("glacier", "glaciers", "snowy glacier", "ice")


def ice_field(c: Canvas) -> None:
    """Ice close by: crevasses and blocks that fill most of the picture."""
    horizon = c.between(-0.3, 0.4)
    sky(c, max(horizon, 0.1))
    if horizon > 0.15 and c.chance(0.5):
        ridge(c, horizon + 0.05, c.between(0.1, 0.35), c.shade(*ROCK), c.between(0.1, 0.5), c.between(0.0, 0.8))
        c.mentions.append("mountains")
    top = horizon + 0.1 * profile(c.rng, 0.6, 3)
    crevasses(c, below(top), c.between(0.5, 2.0), c.between(0.5, 2.0))
    shadow = np.clip(fractal(c.rng, 1.6), -1.5, 1.5)
    c.rgb *= 1 + 0.15 * shadow[..., None]
    c.nouns = ("ice", "ice", "snow and ice", "ice cave")
    c.words += ["close-up"]


def icebergs(c: Canvas) -> None:
    """Icebergs adrift on cold water."""
    horizon = c.between(0.25, 0.6)
    sky(c, horizon)
    if c.chance(0.5):
        ridge(c, horizon, c.between(0.08, 0.3), c.shade(*ROCK), c.between(0.1, 0.5), c.between(0.0, 0.8))
        c.mentions.append("mountains")
    water(c, horizon, horizon, c.shade(*WATER, (0.35, 0.50, 0.56)))
    for foot in np.sort(c.rng.uniform(horizon + 0.02, 0.95, c.rng.integers(1, 6))):
        half, x = c.between(0.08, 0.3) * (0.5 + foot), c.between(0.1, 0.9)
        height = half * c.between(0.4, 1.3)
        outline = foot - height * (1 - ((xs - x) / half) ** 2) * (0.4 + 0.6 * profile(c.rng, 0.7, 6))
        crevasses(c, below(outline) * (ys < foot) * (np.abs(xs - x) < half), 1.0, 1.0)
        mirror = (np.abs(xs - x) < half) & (ys >= foot) & (ys < foot + 0.4 * height)
        c.lay(mirror * 0.35, c.shade(*ICE))
    c.mentions.append("water")
    c.nouns = ("iceberg", "icebergs", "ice")


def snowfield(c: Canvas) -> None:
    """A slope of snow below white peaks."""
    horizon = c.between(0.35, 0.7)
    sky(c, horizon)
    for haze in (0.4, 0.1):
        ridge(c, horizon + 0.1, c.between(0.2, 0.55), c.shade(*ROCK), haze, c.between(-0.4, 0.3))
    slope = horizon + c.between(-0.3, 0.3) * (xs - 0.5) + 0.06 * profile(c.rng, 0.4)
    c.lay(below(slope), textured(c.shade(*ICE[:3]), fractal(c.rng, 1.6, 1.0, 2.0), c.between(0.04, 0.12)))
    if c.chance(0.5):
        crevasses(c, below(slope + c.between(0.05, 0.2)), 1.0, 3.0)
    c.mentions += ["mountains", "snow"]
    c.nouns = ("snow", "snow in the mountains", "snowy glacier")
    c.words += ["snowy"]


# ---------------------------------------------------------------------------------------------- Mountains


def peaks(c: Canvas) -> None:
    """Chains of mountains one behind the other, with a meadow, wood or lake in front."""
    base = c.between(0.5, 1.05)
    sky(c, base - 0.2)
    count = int(c.rng.integers(1, 4))
    snow = c.between(0.15, 1.4)
    for layer in range(count):
        haze = 0.55 * (count - 1 - layer) / count + c.between(0, 0.1)
        height = c.between(0.25, 0.8) * (1 - 0.2 * layer)
        green = LEAVES["green"] if layer and c.chance(0.5) else ()
        ridge(c, base + 0.12 * layer, height, c.shade(*ROCK, *green), haze, snow + 0.3 * layer)
    if base < 0.95:
        front = base + c.between(-0.06, 0.06) * (profile(c.rng) - 0.5)
        kind = c.rng.integers(4)
        if kind == 0:
            water(c, front, base - 0.05, c.shade(*WATER))
            c.mentions.append("lake")
        elif kind == 1:
            foliage(c, below(front - 0.1 * profile(c.rng, 0.8, 8)), *LEAVES["green"], *LEAVES["dark"])
            c.mentions.append("trees")
        else:
            ground(c, front, base - 0.15, *GRASS, *ROCK, amount=0.35)
            c.mentions.append("meadow")
    if snow < 0.7:
        c.words.append("snowy")
    c.nouns = ("mountains", "mountain range", "peaks", "mountain landscape")


def valley(c: Canvas) -> None:
    """Slopes falling from both sides, wooded or bare, with a far range between them."""
    floor = c.between(0.55, 0.85)
    sky(c, floor - 0.2)
    ridge(c, floor, c.between(0.2, 0.55), c.shade(*ROCK), c.between(0.2, 0.6), c.between(0.1, 1.3))
    for side in c.rng.permutation([-1, 1]):
        edge = xs if side > 0 else 1 - xs
        reach = c.between(0.5, 1.0)
        slope = floor + 0.08 - c.between(0.3, 0.8) * np.clip(edge - 1 + reach, 0, 1)
        slope -= 0.1 * profile(c.rng, 0.6, 4) * (edge > 1 - reach)
        flank = c.shade(*ROCK, *LEAVES["green"], *LEAVES["olive"], *LEAVES["dark"])
        haze = c.between(0.0, 0.25) * np.float32(LIGHTS[c.light][1])
        c.lay(below(slope) * (edge > 1 - reach), textured(flank, fractal(c.rng, 1.2), 0.3) + haze)
    front = floor + 0.1 * (profile(c.rng, 0.4) - 0.3)
    if c.chance(0.3):
        water(c, front, floor - 0.05, c.shade(*WATER))
        c.mentions.append("lake")
    else:
        ground(c, front, floor - 0.15, *GRASS, *LEAVES["green"], *ROCK[:2], amount=0.3)
        c.mentions.append("trees")
    c.nouns = ("valley", "mountain valley", "mountain", "mountains")


def cliff(c: Canvas) -> None:
    """A single rock face or butte, near and large."""
    sky(c, 1.0)
    side = c.between(-0.8, 0.8)
    base = c.between(0.9, 1.3)
    lift = np.clip(0.5 + side * (xs - 0.5), 0, 1)
    top = base - c.between(0.6, 0.95) * lift - 0.25 * profile(c.rng, 0.6, 3)
    strata = fractal(c.rng, 1.1, c.between(0.6, 3), c.between(0.6, 3))
    slopes = np.roll(fractal(c.rng, 1.6), 2, 1) * 0.5 + strata * 0.6
    c.lay(below(top), textured(c.shade(*ROCK, (0.62, 0.34, 0.20)), slopes, 0.38))
    if c.chance(0.5):
        patches = np.clip(fractal(c.rng, 1.3) + (ys - 0.4), 0, 1)
        foliage(c, below(top) * patches, *LEAVES["green"], *LEAVES["olive"])
    c.nouns = ("cliff", "cliffs", "rugged mountain cliffs", "rocks")
    c.words += ["close-up", "large"]


def blue_ridges(c: Canvas) -> None:
    """Soft hills fading into haze, wave after wave."""
    start = c.between(0.3, 0.55)
    sky(c, start + 0.1)
    count = int(c.rng.integers(2, 7))
    tone = c.shade((0.16, 0.22, 0.26), (0.15, 0.25, 0.16), (0.22, 0.18, 0.20), (0.25, 0.28, 0.22))
    for layer in range(count):
        base = start + (1.15 - start) * (layer + 1) / count
        outline = base - c.between(0.12, 0.3) * profile(c.rng, c.between(0.3, 0.5), 2)
        haze = (0.75 * (1 - (layer + 0.6) / count)) * np.float32(LIGHTS[c.light][1])
        c.lay(below(outline), textured(tone, fractal(c.rng, 1.1), 0.2) * (0.4 + 0.6 * layer / count) + haze)
    c.nouns = ("hills", "mountain range", "panorama of mountains")


def lone_peak(c: Canvas) -> None:
    """One great summit, often white, above a broad plain."""
    base = c.between(0.6, 0.9)
    sky(c, base)
    x, half, height = c.between(0.25, 0.75), c.between(0.35, 0.8), c.between(0.3, 0.65)
    if c.chance(0.5):
        ridge(c, base, c.between(0.1, 0.25), c.shade(*ROCK), 0.4, c.between(0.4, 1.5))
    cone = np.clip(1 - np.abs(xs - x) / half, 0, 1) ** c.between(0.8, 1.5)
    outline = base - height * cone - 0.1 * profile(c.rng, 0.6, 3)
    relief = fractal(c.rng, 1.7)
    shading = np.tanh(2 * (np.roll(relief, 2, 1) - relief) + np.where(x > xs, 1, -1) * c.between(-0.5, 0.5))
    rock = textured(c.shade(*ROCK), shading, 0.4)
    snow = np.clip(((base - ys) / height - c.between(0.1, 1.1) + 0.2 * fractal(c.rng, 1.2)) * 5, 0, 1)
    white = textured((0.92, 0.94, 0.98), shading, 0.2)
    c.lay(below(outline), rock + snow[..., None] * (white - rock))
    ground(c, base + 0.03 * profile(c.rng), base - 0.1, *GRASS, *ROCK, amount=0.3)
    c.nouns = ("peak", "summit", "mountain", "mountain peak")
    c.words += ["one", "large"]


# ---------------------------------------------------------------------------------------------------- Sea


def open_sea(c: Canvas) -> None:
    """Sky, a horizon, and waves up to the viewer."""
    horizon = c.between(0.2, 0.75)
    sky(c, horizon)
    if c.chance(0.2):
        hills(c, horizon + 0.005)
    water(c, horizon, horizon, c.shade(*WATER))
    for _ in range(c.rng.integers(0, 4)):
        y = c.between(horizon + 0.05, 1)
        crest = y + 0.02 * profile(c.rng, 0.6, 3)
        foam = np.exp(-np.abs(ys - crest) / (0.01 + 0.03 * (y - horizon)))
        foam *= np.clip(0.7 + 0.6 * fractal(c.rng, 1, 1, 3), 0, 1)
        c.lay(foam * 0.9, (0.93, 0.95, 0.96))
    if c.chance(0.3):
        x, size = c.between(0.1, 0.9), c.between(0.03, 0.1)
        y = horizon + c.between(0.0, 0.15)
        hull = c.shade((0.2, 0.2, 0.22), (0.8, 0.8, 0.8))
        c.lay(box(x - size, y - 0.25 * size, x + size, y + 0.1 * size), hull)
        sail = c.shade((0.85, 0.85, 0.85), (0.3, 0.25, 0.2))
        c.lay(box(x - 0.02 * size, y - size, x + 0.3 * size, y), sail)
        c.mentions.append("boat")
    c.nouns = ("ocean", "ocean", "sea", "sea and waves", "horizon")


def beach(c: Canvas) -> None:
    """Surf running up a shore."""
    horizon = c.between(0.15, 0.55)
    sky(c, horizon)
    if c.chance(0.2):
        hills(c, horizon + 0.005)
    water(c, horizon, horizon, c.shade(*WATER))
    tilt = c.between(-0.8, 0.8)
    shore = c.between(0.55, 0.85) + tilt * (xs - 0.5) + 0.06 * profile(c.rng, 0.5, 2)
    ground(c, np.maximum(shore, horizon + 0.04), horizon - 0.1, *SAND, *ROCK[:2], amount=0.12)
    wet = np.exp(-np.clip(ys - shore, 0, 1) / 0.06) * (ys > shore)
    c.lay(wet * 0.4, np.float32(LIGHTS[c.light][1]) * 0.7, lit=False)
    for step in range(c.rng.integers(1, 4)):
        line = shore - 0.09 * step * (1 + 0.4 * fractal(c.rng, 1.8))
        foam = np.exp(-np.abs(ys - line) / c.between(0.015, 0.05)) * (line > horizon + 0.03)
        c.lay(np.clip(foam * (1 + 0.4 * fractal(c.rng, 0.8, 1, 2)), 0, 1), (0.95, 0.96, 0.97))
    c.mentions.append("beach")
    c.nouns = ("beach", "coast", "waves", "seashore")


def rocky_coast(c: Canvas) -> None:
    """Rocks or a headland standing in the water."""
    horizon = c.between(0.2, 0.55)
    sky(c, horizon)
    water(c, horizon, horizon, c.shade(*WATER))
    if c.chance(0.5):
        from_left = c.chance(0.5)
        reach = np.clip((c.between(0.4, 0.8) - (xs if from_left else 1 - xs)) * 2, 0, 1)
        top = horizon + 0.05 - c.between(0.2, 0.5) * reach * (0.6 + 0.4 * profile(c.rng, 0.6, 3))
        land = below(top) * (reach > 0) * (horizon + 0.02 + 0.25 * reach > ys)
        c.lay(land, textured(c.shade(*ROCK, *LEAVES["green"]), fractal(c.rng, 1.1), 0.35))
        c.mentions.append("cliffs")
    for _ in range(c.rng.integers(2, 10)):
        y = c.between(horizon + 0.08, 1.05)
        size = c.between(0.04, 0.3) * (y - horizon + 0.1)
        rock = disc(c.between(0, 1), y, size, size * c.between(0.3, 0.7), 0.35 * fractal(c.rng, 1.2))
        c.lay(np.roll(rock, 2, 0) * 0.7, (0.92, 0.94, 0.95))
        c.lay(rock, textured(c.shade(*ROCK) * 0.7, fractal(c.rng, 1.0), 0.3))
    c.mentions.append("rocks")
    c.nouns = ("rocky coast", "coast", "shore", "ocean")


def deep_water(c: Canvas) -> None:
    """Only water: ripples seen from above, or turquoise depths."""
    horizon = c.between(-0.8, -0.05)
    c.lay(np.ones_like(ys), np.float32(LIGHTS[c.light][1]), lit=False)
    water(c, -1.0, horizon, c.shade(*WATER))
    swell = plane(c.rng, horizon, 1.4, 3.0)
    c.rgb *= 1 + c.between(0.05, 0.25) * swell[..., None]
    if c.chance(0.4):
        patches = np.clip(fractal(c.rng, 1.4, 1.0, 2.0) - c.between(0.2, 1.2), 0, 1)
        c.lay(patches * 0.8, c.shade((0.9, 0.94, 0.95), (0.1, 0.55, 0.6), (0.05, 0.15, 0.25)))
    c.nouns = ("water", "waves", "sea water")
    c.words += ["close-up"]


# ------------------------------------------------------------------------------------------------- Street


def row_of_houses(c: Canvas, side: int, vanish: tuple[float, float], kerb: float) -> None:
    """The facades along one side of a street, from the picture's edge towards the vanishing point."""
    vx, vy = vanish
    edge = -0.05 if side < 0 else 1.05
    near, roof = 0.0, vy - c.between(0.35, 1.3)
    foot = vy + (1.05 - vy) * kerb
    while near < 0.9:
        far = min(0.93, near + c.between(0.15, 0.45) * (1 - near))
        lift = c.between(0.75, 1.15)

        def at(t: float, lift: float = lift) -> tuple[float, float, float]:
            return edge + (vx - edge) * t, vy + (roof - vy) * lift * (1 - t), vy + (foot - vy) * (1 - t)

        first, last = (at(near), at(far)) if side < 0 else (at(far), at(near))
        front(c, first, last, c.shade(*WALLS), (3, 8), (2, 6), (0.5, 1.1))
        near = far


def roadway(c: Canvas, vanish: tuple[float, float], left: float, right: float) -> None:
    """Asphalt narrowing to the vanishing point, with kerbs and lane marks, perhaps a crossing."""
    vx, vy = vanish
    fall = np.clip((ys - vy) / (1 - vy), 0, None)
    across = np.where(fall > 0.01, (xs - vx) / np.maximum(fall, 0.01), 9)
    road = (across > left) & (across < right) & (ys > vy)
    asphalt = c.shade((0.30, 0.30, 0.32), (0.42, 0.42, 0.43), (0.22, 0.22, 0.24), (0.50, 0.46, 0.42))
    c.lay(road, textured(asphalt, plane(c.rng, vy, 0.9), c.between(0.05, 0.15)))
    dashes = (c.between(1, 4) / np.maximum(fall, 0.02)) % 1 < 0.55
    for lane in np.linspace(left, right, c.rng.integers(2, 5))[1:-1]:
        c.lay(road & dashes & (np.abs(across - lane) < 0.025), c.shade((0.9, 0.9, 0.88), (0.85, 0.7, 0.2)))
    if c.chance(0.5):
        for kerb in (left, right):
            c.lay((np.abs(across - kerb) < 0.03) & (ys > vy), (0.75, 0.74, 0.72))
    if c.chance(0.15):
        start = c.between(0.5, 0.8)
        c.lay(road & (fall > start) & (fall < start + 0.15) & (across * 6 % 1 < 0.5), (0.9, 0.9, 0.9))


def traffic(c: Canvas, vanish: tuple[float, float], left: float, right: float) -> None:
    """Cars, lamps, trees and people, farthest first."""
    vx, vy = vanish
    leaves = season(c)
    for depth in np.sort(c.rng.uniform(0.08, 0.95, c.rng.integers(0, 9))):
        y = vy + (1 - vy) * depth
        what = c.rng.integers(5)
        if what <= 1:
            x = vx + c.between(left, right) * depth
            car(c, x, y, 0.45 * depth * (right - left) * c.between(0.4, 0.6))
            c.mentions.append("cars")
        elif what == 2:
            x = vx + c.rng.choice([left, right]) * depth * 1.15
            tree(c, x, y, 0.7 * depth * c.between(0.6, 1.2), leaves)
            c.mentions.append("trees")
        elif what == 3:
            x = vx + c.rng.choice([left, right]) * depth * 1.05
            c.lay(box(x - 0.008, y - 0.9 * depth, x + 0.008, y), (0.15, 0.15, 0.16))
            lamp = disc(x, y - 0.9 * depth, 0.025, 0.02)
            c.lay(lamp, (1.0, 0.9, 0.65), lit=c.light not in ("night", "dusk"))
        else:
            x, tall = vx + c.between(1.4 * left, 1.4 * right) * depth, 0.32 * depth
            coat = c.shade((0.15, 0.15, 0.2), (0.6, 0.2, 0.2), (0.7, 0.7, 0.7))
            c.lay(disc(x, y - tall * 0.5, 0.16 * tall, 0.5 * tall), coat)
            c.mentions.append("people")


def avenue(c: Canvas) -> None:
    """A street between houses."""
    vanish = c.between(0.3, 0.7), c.between(0.35, 0.6)
    sky(c, vanish[1])
    left, right = -c.between(0.4, 1.1), c.between(0.4, 1.1)
    ground(c, vanish[1], vanish[1], *PAVING, amount=0.1)
    roadway(c, vanish, left, right)
    for side in (-1, 1):
        if c.chance(0.9):
            row_of_houses(c, side, vanish, c.between(0.35, 0.8))
    if c.chance(0.7):
        vx, vy = vanish
        end = box(vx - 0.06, vy - c.between(0.05, 0.2), vx + 0.06, vy + 0.02)
        c.lay(end * 0.8, c.shade(*WALLS))
    traffic(c, vanish, left, right)
    c.mentions.append("buildings")
    c.nouns = ("city street", "avenue", "urban street", "street")


def alley(c: Canvas) -> None:
    """A narrow lane, walls close on both sides, little sky."""
    vanish = c.between(0.35, 0.65), c.between(0.45, 0.65)
    sky(c, vanish[1])
    ground(c, vanish[1], vanish[1], *PAVING, *SAND, amount=0.2)
    if c.chance(0.4):
        roadway(c, vanish, -0.3, 0.3)
    for side in (-1, 1):
        row_of_houses(c, side, vanish, c.between(0.75, 1.6))
    c.lay(disc(vanish[0], vanish[1], 0.06, 0.1), np.float32(LIGHTS[c.light][1]) * 0.8, lit=False)
    if c.chance(0.4):
        traffic(c, vanish, -0.4, 0.4)
    c.mentions.append("houses")
    c.nouns = ("alley", "lane", "narrow street", "street")


def open_road(c: Canvas) -> None:
    """A wide road, few buildings, trees along it."""
    vanish = c.between(0.3, 0.7), c.between(0.35, 0.6)
    sky(c, vanish[1])
    ground(c, vanish[1], vanish[1] - 0.05, *GRASS, *PAVING)
    for _ in range(c.rng.integers(0, 6)):
        x, width = c.between(-0.1, 1), c.between(0.08, 0.25)
        roof = vanish[1] - c.between(0.05, 0.35)
        foot = vanish[1] + 0.03
        front(c, (x, roof, foot), (x + width, roof, foot), c.shade(*WALLS), (2, 6), (2, 5))
        c.mentions.append("buildings")
    left, right = -c.between(0.5, 1.4), c.between(0.5, 1.4)
    roadway(c, vanish, left, right)
    traffic(c, vanish, left, right)
    c.nouns = ("road", "road", "highway", "wide road")


def kerbside(c: Canvas) -> None:
    """Shop fronts across the street, cars parked before them."""
    kerb = c.between(0.62, 0.85)
    sky(c, kerb)
    x = c.between(-0.3, 0)
    while x < 1:
        width, roof = c.between(0.2, 0.6), c.between(-0.4, 0.3)
        front(c, (x, roof, kerb), (x + width, roof, kerb), c.shade(*WALLS), (2, 6), (2, 6))
        c.lay(box(x, kerb - 0.14, x + width, kerb - 0.11), c.shade(*WALLS, (0.7, 0.1, 0.1), (0.1, 0.4, 0.2)))
        x += width
    ground(c, kerb, kerb - 0.3, *PAVING, (0.3, 0.3, 0.32), amount=0.1)
    leaves = season(c)
    for _ in range(c.rng.integers(1, 6)):
        if c.chance(0.6):
            car(c, c.between(0, 1), kerb + c.between(0.02, 0.2), c.between(0.15, 0.35))
        else:
            tree(c, c.between(0, 1), kerb + 0.05, c.between(0.3, 0.6), leaves)
    c.mentions += ["cars", "buildings"]
    c.nouns = ("cars", "busy street", "shops", "street with cars")


PAINTERS = {
    "Buildings": (corner, skyline, facade, towers, house, castle),
    "Forests": (trunks, trunks, thicket, treeline),
    "Glacier": (ice_front, ice_river, ice_field, icebergs, snowfield),
    "Mountains": (peaks, peaks, valley, cliff, blue_ridges, lone_peak),
    "Sea": (open_sea, beach, beach, rocky_coast, deep_water),
    "Street": (avenue, avenue, alley, open_road, kerbside),
}
