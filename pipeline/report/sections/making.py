"""How the labels came about: members, prompts, and what to look at before the next submission."""

from collections.abc import Sequence

import numpy as np

from ..page import Grid, Matrix, Section, Table, number, percent
from ..result import Result
from ..tiles import TILES, grid
from .labels import DENSE

TEXT = 2000  # rows of the prompt table


def advice(result: Result) -> Section | None:
    """What to look at before the next submission, as `make advise` says it; without truth and scores of its own."""
    if result.shares is None or not result.made:
        return None
    names = result.class_names
    columns = (
        "class",
        "predicted",
        "expected",
        "standard errors away",
        *["one prompt decides"] * (result.fragile is not None),
    )
    rows = []
    for c, name in enumerate(names):
        row = [
            name,
            number(int(result.counts[c])),
            number(round(float(result.expected[c]))),
            number(result.off_prior[c], f"{result.off_prior[c]:+.1f}"),
        ]
        moved = [] if result.fragile is None else [number(int((result.fragile & (result.labels == c)).sum()))]
        rows.append((*row, *moved))
    blocks = [Table(columns, rows)]
    if result.changes:
        blocks.append(Table(("against", "can the public board see it?"), [(c.against, c.seen) for c in result.changes]))
    table = result.two_way
    if len(result.members) > 1 and len(names) <= DENSE:
        texts = [[str(n) if n else "" for n in row] for row in table]
        shades = table / max(1, table.max()) * 0.8
        blocks.append(Matrix(names, names, texts, shades.tolist(), corner="label ↓ a member says →"))
    top = result.doubtful[:TILES]
    several = len(result.members) > 1
    dissent = [f", {result.dissent[row]:.0%} of the weight says otherwise" if several else "" for row in top]
    details = [f"ahead by {result.margin[row]:.0%}{said}" for row, said in zip(top, dissent, strict=True)]
    note = (
        f"No label was looked at. Expected: {result.expectation}. Away from there, in standard errors of a random "
        f"sample; {result.moved_by_prior:,} labels at least would have to change. One prompt decides: images whose "
        "label changes when some one prompt is left out. "
        + "The matrix: images that a member labels otherwise. " * several
        + "Below, images whose best class is little ahead"
        + (", those that members dispute first." if several else ".")
    )
    return Section("Advice", note, [*blocks, grid(result, top, details)])


def members(result: Result) -> Section | None:
    """How much the members differ from each other, and the images they differ about."""
    if not result.members:
        return None
    letters = [_letter(m) for m in range(len(result.members))]
    weighted = result.members[0].weight is not None
    columns, rows = ["key", "member", *["weight"] * weighted, f"as the {result.subject}"], []
    for letter, member in zip(letters, result.members, strict=True):
        row = [letter, member.name] + ([percent(member.weight, bar=False)] if weighted else [])
        row.append(percent((member.labels == result.labels).mean()))
        if result.truth is not None:
            row.append(percent((member.labels == result.truth).mean(), digits=2))
        rows.append(row)
    blocks = [Table(columns + ["accuracy"] * (result.truth is not None), rows)]
    if len(letters) > 1:
        apart = result.disagreement
        texts = [[f"{share:.1%}" if a != b else "" for b, share in enumerate(row)] for a, row in enumerate(apart)]
        scale = max(apart.max(), 1e-9)
        blocks.append(Matrix(letters, letters, texts, (apart / scale * 0.8).tolist(), corner="differ"))
        blocks += _disputed(result, letters)
    note = "Each member's own labels."
    if len(letters) > 1:
        note += " The matrix: share of images that two label differently; below, some of those."
    return Section("Members", note, blocks)


def _disputed(result: Result, letters: Sequence[str]) -> list[Grid]:
    """Images that members label differently, those with the most labels first, evenly picked."""
    labels_MN = np.stack([member.labels for member in result.members])
    kinds = np.array([len(set(column)) for column in labels_MN.T])
    apart = np.flatnonzero(kinds > 1)
    apart = apart[np.argsort(-kinds[apart], kind="stable")]
    rows = apart[np.linspace(0, len(apart) - 1, min(TILES, len(apart))).astype(int)]
    named = [[result.class_names[label] for label in column] for column in labels_MN.T[rows]]
    details = ["\n".join(map(": ".join, zip(letters, names, strict=True))) for names in named]
    return [grid(result, rows, details)] if len(rows) else []


def _letter(position: int) -> str:
    return chr(ord("A") + position) if position < 26 else f"M{position + 1}"


def prompts(result: Result) -> Section | None:
    """What each prompt column contributes."""
    if not result.prompts:
        return None
    shown = sorted(result.prompts, key=lambda use: (-use.flips, -use.largest))[:TEXT]
    columns = ["class", "prompt", "largest in", "mean", "flips without"] + ["right without"] * (
        result.truth is not None
    )
    unequal = len({use.weight for use in result.prompts}) > 1
    columns[2:2] = ["weight"] * unequal
    most, rows = max(use.mean for use in shown) or 1.0, []
    for use in shown:
        row = [
            result.class_names[use.label],
            use.prompt,
            number(use.largest),
            number(use.mean, f"{use.mean:.2%}", use.mean / most),
            number(use.flips),
        ]
        row[2:2] = [number(use.weight, f"{use.weight:.3f}")] * unequal
        rows.append(row if use.gain is None else [*row, number(use.gain, f"{use.gain:+d}")])
    note = "Weight: in its class's mean. " * unequal
    note += (
        "Largest in: images for which this is the largest of all columns. Mean: its probability over all images. "
        "Flips without: labels that change when it is left out of its class's pool"
    )
    note += "." if result.truth is None else "; right without: how many more are right then."
    return Section("Prompts", note, [Table(columns, rows)])
