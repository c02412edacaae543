"""Charts as inline SVG that follow the page's colours, drawn by matplotlib.

matplotlib knows no CSS variables, so it draws with stand-in colours that `_svg` replaces: one drawing is right
on a light page and on a dark one.
"""

import io
import re
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

INK, SOFT, LINE, ACCENT = (f"#0a0b0{n}" for n in range(4))
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", ACCENT: "accent"}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}
HUES = 10  # colours of page.css; more classes go round the colour wheel


def colour(label: int) -> str:
    """The stand-in of a class's colour."""
    return f"#0c{label // 256:02x}{label % 256:02x}"


def _css(match: re.Match) -> str:
    stand_in = match.group(0)
    if stand_in in VARIABLES:
        return f"var(--{VARIABLES[stand_in]})"
    label = int(stand_in[3:], 16)
    return f"var(--c{label})" if label < HUES else f"hsl({label * 137.5 % 360:.0f} 55% 52%)"


def _svg(draw, width: float, height: float, salt: str) -> str:
    """What `draw(axes)` draws, as an <svg> element; `salt` and what is drawn keep its ids apart from others."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        figure = Figure(figsize=(width, height))
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) (width|height)="[^"]*"', r"\1", text)
    salt = f"{salt}-{zlib.crc32(text.encode()):x}"
    text = re.sub(r'( id="|href="#|url\(#)', rf"\1{salt}-", text)
    return re.sub(r"#0[ac]\w{4}", _css, text)


def reliability(confidence: Sequence[float], right: Sequence[float], counts: Sequence[int]) -> str:
    """Share of right labels over mean confidence, a dot per bin with its area by the number of images."""

    def draw(axes):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (3, 3)))
        axes.plot(confidence, right, color=ACCENT, linewidth=1.4)
        axes.scatter(confidence, right, s=20 + 180 * np.asarray(counts) / max(counts), color=ACCENT, linewidth=0)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share of right labels", aspect="equal")

    return _svg(draw, 4.4, 4.2, "reliability")


def intervals(names: Sequence[str], values: Sequence[tuple[float, float, float]], xlabel: str) -> str:
    """(value, low, high) as a dot with its interval, a line each under its name, the first on top."""

    def draw(axes):
        middle, low, high = np.array(values).T
        rows = -np.arange(len(names))
        axes.errorbar(
            middle, rows, xerr=(middle - low, high - middle), fmt="o", color=ACCENT, markersize=5, linewidth=1.6
        )
        for name, row in zip(names, rows, strict=True):
            axes.annotate(name, (0, row), xycoords=("axes fraction", "data"), xytext=(2, 7), textcoords="offset points")
        axes.set(ylim=(rows[-1] - 0.5, 0.8), yticks=[], xlabel=xlabel)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.spines["left"].set_visible(False)

    return _svg(draw, 4.2, 0.7 + 0.38 * len(names), "intervals")


def elbow(curves: dict[str, Sequence[float]]) -> str:
    """Share of variance that the first components explain, a line per member."""

    def draw(axes):
        for number, (name, explained) in enumerate(curves.items()):
            axes.plot(range(1, len(explained) + 1), explained, color=colour(number), linewidth=1.6, label=name)
        axes.set(ylim=(0, 1.02), xlabel="principal components", ylabel="variance explained", xscale="log")
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
        axes.legend(loc="lower right")

    return _svg(draw, 4.4, 3.4, "elbow")


def curves(
    lines: dict[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    bands: dict[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    levels: dict[str, float] | None = None,
    dots: dict[str, tuple[float, float]] | None = None,
    doubling: bool = False,
) -> str:
    """A line per name: its (x, y), perhaps a band (low, high), a dot; `levels` are horizontal; x may double."""

    def draw(axes):
        for label, (name, (x, y)) in enumerate(lines.items()):
            marker = "o" if doubling else ""
            axes.plot(x, y, color=colour(label), linewidth=1.6, label=name, marker=marker, markersize=3)
            if bands:
                axes.fill_between(x, *bands[name], color=colour(label), alpha=0.15, linewidth=0)
            if dots:
                axes.scatter(*dots[name], s=30, color=colour(label), zorder=3)
        for name, level in (levels or {}).items():
            axes.axhline(level, color=SOFT, linewidth=1.2, linestyle=(0, (3, 3)), label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if all(isinstance(value, int) for x, _ in lines.values() for value in x):
            axes.xaxis.get_major_locator().set_params(integer=True)  # no ticks at 1.2 epochs
        if doubling:
            ticks = sorted({value for x, _ in lines.values() for value in x})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
        axes.legend(loc="best")

    return _svg(draw, 5.6, 3.8, "curves")


def standalone(svg: str) -> str:
    """A drawing as a file of its own, in the colours of a light page on white."""
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    light = dict(reversed(re.findall(r"--(\w+): (#\w+);", css)))
    drawn = re.sub(r"var\(--(\w+)\)", lambda match: light[match[1]], svg)
    return drawn.replace(">", '><rect width="100%" height="100%" fill="#ffffff"/>', 1)


def scatter(points: np.ndarray, labels: np.ndarray, prototypes: np.ndarray, names: Sequence[str]) -> str:
    """Images as dots in the colour of their class, text prototypes (C, 2) as diamonds with the class's name."""

    def draw(axes):
        size = np.clip(5000 / len(points), 3, 24)
        axes.scatter(*points.T, s=size, color=[colour(label) for label in labels], alpha=0.75, linewidth=0)
        for label, (x, y) in enumerate(prototypes):
            axes.scatter(x, y, s=40, marker="D", color=colour(label), edgecolor=INK, linewidth=1, zorder=3)
        for label, (x, y) in enumerate(prototypes if len(names) <= 30 else ()):
            axes.annotate(names[label], (x, y), xytext=(5, 3), textcoords="offset points", color=INK, weight="bold")
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_visible(False)
        axes.margins(0.08)

    return _svg(draw, 5.4, 4.6, "scatter")


def histogram(values: Sequence[float], name: str, salt: str) -> str:
    """How often each value occurs, in at most 40 bins of whole numbers."""
    low, high = int(np.floor(min(values))), int(np.floor(max(values)))
    step = -(-(high - low + 1) // 40)

    def draw(axes):
        axes.hist(values, bins=np.arange(low, high + step + 1, step), color=ACCENT, linewidth=0)
        axes.set(xlabel=name, ylabel="images")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="x", visible=False)

    return _svg(draw, 4.4, 2.8, salt)
