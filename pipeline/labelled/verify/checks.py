"""What is compared of two ways to run a checkpoint, and when that is right."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from ...chain.canary import NOISE
from ...maths.zeroshot import normalise
from ...recipes import Preprocess

Verdict = Literal["right", "wrong", "told", "not done", "failed"]
GEOMETRY = {"resize", "center_crop", "pad_square"}  # of a recipe that only makes a picture square
LEVELS = 3  # of 255 that two ways to resize may round apart
SHADES = 1e-3  # of normalised values
SURE = 3.5  # standard deviations above chance

PROMPTS = [
    "a photo of a cat",
    "A Photo of a Snake_Case Cat, isn't it?!",
    "ÜBER straße & naïve café; 50% (of) U.S.A.",
    "🐈‍⬛ a cat 👩🏽‍🚀",
    "قطة على سجادة",
    "e\u0301 o\u0308",
    "two\nlines\tand a tab",
    "𝕮𝖆𝖙",
    "''\"\"",
    "-",
    "42 mountains at dawn",
]


@dataclass(frozen=True)
class Check:
    """One comparison: its verdict, a sentence, and figures for a bug report."""

    name: str
    verdict: Verdict
    text: str
    figures: dict = field(default_factory=dict)

    def content(self) -> dict:
        return asdict(self)


def normalisation(transform: Callable, mean: tuple[float, ...], std: tuple[float, ...]) -> Check:
    """What the library makes of black and of white, which no resizing changes, with the mean and std used here."""
    furthest = 0.0
    for value in (0, 255):
        theirs = transform(Image.new("RGB", (64, 64), (value,) * 3)).mean(dim=(1, 2))
        furthest = max(furthest, (theirs - (value / 255 - torch.tensor(mean)) / torch.tensor(std)).abs().max().item())
    right = furthest < SHADES
    text = f"black and white differ by {furthest:.2g} once normalised" + ("" if right else ": another mean or std")
    return Check("normalisation", "right" if right else "wrong", text, {"largest_difference": furthest})


def pixels(
    transform: Callable, seen: dict[str, Tensor], drawn: dict[str, Image.Image], recipe: Preprocess, meant: bool
) -> Check:
    """The library's pixels, brought back to 0..255 by what it makes of black and white, and those of the recipe.

    `meant`: the entry's recipe is meant to see images otherwise, so that a difference is told and not judged.
    """
    black, white = (transform(Image.new("RGB", (64, 64), (v,) * 3))[:, :1, :1] for v in (0, 255))
    far, mean, name = 0.0, 0.0, ""
    for title, picture in drawn.items():
        theirs = transform(picture)
        if theirs.shape != seen[title].shape:
            text = f"the recipe makes {tuple(seen[title].shape)}, the library {tuple(theirs.shape)}"
            return Check("pixels", "told" if meant else "wrong", text)
        difference = ((theirs - black) / (white - black) * 255 - seen[title].float()).abs()
        mean = max(mean, difference.mean().item())
        if difference.max() > far:
            far, name = difference.max().item(), title
    verdict = "right" if far <= LEVELS else "told" if meant else "wrong"
    text = f"at most {far:.3g} of 255 apart" + (f" (picture {name!r})" if far > LEVELS else "")
    if verdict == "told":
        text += f": the recipe is meant to ({', '.join(op for op, _ in recipe.ops)})"
    return Check("pixels", verdict, text, {"largest": far, "largest_mean": mean, "picture": name})


def features(name: str, ours: Tensor, theirs: Tensor, noise: float) -> Check:
    """Smallest cosine between features of the same things; of several vectors each."""
    if ours.shape != theirs.shape:
        return Check(name, "wrong", f"features {tuple(ours.shape)} here, {tuple(theirs.shape)} there")
    cosines = (normalise(ours.cpu().float()) * normalise(theirs.cpu().float())).sum(-1)
    cosines = cosines.amin(dim=1) if cosines.ndim > 1 else cosines
    lowest = cosines.min().item()
    right = 1 - lowest <= noise  # False for what is not finite
    far = [number for number, cosine in enumerate(cosines.tolist()) if not 1 - cosine <= noise]
    text = f"cosine {lowest:.6f} at the least" + (
        "" if right else f", {len(far)} of {len(cosines)} beyond {1 - noise:g}"
    )
    return Check(name, "right" if right else "wrong", text, {"lowest_cosine": lowest, "noise": noise, "beyond": far})


def dtype(ours: dict[str, Tensor], exact: dict[str, Tensor], kind: str) -> Check:
    """The dtype in use with float32, both towers."""
    each = [features(tower, ours[tower], exact[tower], 5 * NOISE[kind]) for tower in ours]
    worst = min(each, key=lambda check: check.figures.get("lowest_cosine", -1))
    return Check(f"{kind} and fp32", worst.verdict, f"{worst.text} ({worst.name})", worst.figures)


def zero_shot(image_ND: Tensor, text_CD: Tensor, truth: Tensor) -> Check:
    """Scenes that are told apart; right when that is far more than by chance."""
    scores = image_ND.float() @ text_CD.T
    found = scores.amax(dim=1) if scores.ndim == 3 else scores
    hits, classes = (found.argmax(dim=1) == truth).float().mean().item(), len(text_CD)
    chance = 1 / classes
    needed = chance + SURE * (chance * (1 - chance) / len(truth)) ** 0.5
    figures = {"accuracy": hits, "images": len(truth), "classes": classes, "needed": needed}
    text = f"{100 * hits:.0f} % of {len(truth)} rendered scenes, chance {100 * chance:.0f} %"
    if hits >= needed:
        return Check("zero-shot", "right", text, figures)
    return Check("zero-shot", "wrong", f"{text}: wrong weights, layers or tokenizer", figures)


def structure(module: torch.nn.Module, tower: str) -> Check:
    """What every trained tower has: finite weights of a plausible spread, and no matrix twice."""
    seen: dict[tuple, str] = {}
    for name, weight in module.named_parameters():
        if weight.ndim < 2 or weight.numel() < 16 or weight.is_meta:
            continue
        sample = weight.flatten()[:: max(1, weight.numel() // 4096)].float().cpu()
        if not sample.isfinite().all() or not 1e-6 < sample.std() < 100:
            return Check(f"{tower} weights", "wrong", f"{name}: standard deviation {sample.std():.3g}")
        key = (tuple(weight.shape), *sample[:16].tolist())
        if key in seen:
            return Check(f"{tower} weights", "wrong", f"{name} is the same as {seen[key]}")
        seen[key] = name
    count = sum(weight.numel() for weight in module.parameters())
    text = f"{count / 1e6:.1f} million, {len(seen)} matrices, all finite, none twice"
    return Check(f"{tower} weights", "right", text, {"parameters": count})
