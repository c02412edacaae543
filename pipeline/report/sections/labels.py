"""The labels: by class, right and wrong, sure and unsure, with pictures."""

import numpy as np

from ..page import Figure, Matrix, Section, Table, charts, histogram, number, percent
from ..result import Result
from ..tiles import TILES, grid, how

PAIRS = 12
DENSE = 30  # more classes than this make no readable matrix


def classes(result: Result) -> Section:
    """Per-class accuracy where truth is known, else the histogram of predictions."""
    names = result.class_names
    if result.truth is None:
        table = Table(("class", "predicted", "share"), histogram(names, result.counts.tolist()))
        return Section("Classes", "How often each class is predicted; the truth is not known here.", [table])
    measured = result.per_class
    precision, recall, f1, true = measured.precision, measured.recall, measured.f1, measured.true
    rows = [
        (
            name,
            number(int(true[c])),
            number(int(result.counts[c])),
            percent(recall[c]),
            percent(precision[c], bar=False),
            percent(f1[c], bar=False),
        )
        for c, name in enumerate(names)
    ]
    note = (
        "Recall is the share of a class's images that are found, precision the share of its predictions that are right."
    )
    return Section("Classes", note, [Table(("class", "true", "predicted", "recall", "precision", "F1"), rows)])


def confusion(result: Result) -> Section | None:
    """The confusion matrix, where it is readable, and the most confused pairs with examples."""
    if result.truth is None:
        return None
    counts, blocks, names = result.confusion, [], result.class_names
    if len(names) <= DENSE:
        shades = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))  # or small ones would not be seen
        texts = [[str(n) if n else "" for n in row] for row in counts]
        blocks.append(Matrix(names, names, texts, shades.tolist(), corner="true ↓ predicted →"))
    pairs = [(int(n), t, p) for (t, p), n in np.ndenumerate(counts) if t != p and n]
    pairs = sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:PAIRS]
    if pairs:
        rows = [(names[t], names[p], number(n), percent(n / counts[t].sum())) for n, t, p in pairs]
        blocks.append(Table(("true", "taken for", "images", "of the class"), rows))
        examples = [np.flatnonzero((result.truth == t) & (result.labels == p))[:2] for _, t, p in pairs]
        blocks.append(grid(result, np.concatenate(examples)))
    note = "Shades grow with the share of the true class. Below, two examples of each of the most confused pairs."
    return Section("Confusion", note, blocks)


def pictures(result: Result) -> Section:
    """Images of every predicted class."""
    each = max(1, 2 * TILES // len(result.class_names))
    found = [np.flatnonzero(result.labels == label) for label in range(len(result.class_names))]
    rows = [own[np.linspace(0, len(own) - 1, min(each, len(own))).astype(int)] for own in found]
    return Section(
        "Images",
        f"{how(result)}, evenly picked from every predicted class.",
        [grid(result, np.concatenate(rows)[: 4 * TILES])],
    )


def mistakes(result: Result) -> Section | None:
    """Wrong labels that the ensemble was sure of."""
    if result.truth is None or result.shares is None or result.right.all():
        return None
    wrong = np.flatnonzero(~result.right)
    rows = wrong[np.argsort(-result.confidence[wrong], kind="stable")][:TILES]
    note = "Wrong labels of the highest confidence: the truth is wrong, or a class needs better words."
    return Section("Surest mistakes", note, [grid(result, rows)])


def uncertain(result: Result) -> Section | None:
    """Images whose best two classes are nearly level."""
    if result.shares is None:
        return None
    rows = np.argsort(result.margin, kind="stable")[:TILES]
    second = np.argsort(-result.shares[rows], axis=1, kind="stable")[:, :2]
    details = [
        "\n".join(f"{result.class_names[c]} {result.shares[row, c]:.0%}" for c in best)
        for row, best in zip(rows, second, strict=True)
    ]
    return Section("Least certain", "The best class is least ahead of the second.", [grid(result, rows, details)])


def reliability(result: Result) -> Section | None:
    """Is 80 % confidence right in 80 % of the cases?"""
    if result.truth is None or result.shares is None:
        return None
    confidence, right, counts = result.calibration
    rows = [
        (percent(c, bar=False), percent(r), number(int(n))) for c, r, n in zip(confidence, right, counts, strict=True)
    ]
    note = (
        f"Confidence is the predicted class's share of the pooled probabilities. Below the diagonal the "
        f"{result.subject} is too sure, above it too cautious. Expected calibration error "
        f"{result.calibration_error:.2%}."
    )
    figure = Figure(charts.reliability(confidence.tolist(), right.tolist(), counts.tolist()), width=440)
    return Section("Reliability", note, [figure, Table(("confidence", "right", "images"), rows)])
