"""The sections of a report: each function shows one side of a Result, or None where the Result does not know it."""

import json
from collections.abc import Sequence
from functools import partial

import numpy as np
import yaml

from ..chain.rules import WORDS
from ..maths import metrics
from ..recipes import Ensemble
from .page import Details, Figure, Grid, Matrix, Section, Table, Tile, charts, histogram, number, percent, small_picture
from .result import Result, embedded, explained_variance

TILES = 24
PAIRS = 12
DENSE = 30  # more classes than this make no readable matrix
LEAST = 5  # images from which features can be drawn
TEXT = 2000  # rows of the prompt table


def cards(result: Result) -> list[tuple[str, str, str]]:
    """The headline numbers: (number, name, remark)."""
    made = [(f"{len(result.labels):,}", "images", f"{len(result.class_names)} classes")]
    if result.truth is not None:
        accuracy = float(result.right.mean())
        noise = metrics.accuracy_noise(accuracy, len(result.labels))
        made.append((f"{accuracy:.2%}", "accuracy", f"standard error {noise:.2%}"))
        made.append((f"{result.per_class.macro_f1:.2%}", "macro F1", f"mean recall {result.per_class.mean_recall:.2%}"))
    for key in ("public", "private"):
        if key in result.board:
            made.append((result.board[key], f"{key} score", "leaderboard"))
    if result.shares is not None:
        remark = ""
        if result.truth is not None:
            remark = f"calibration error {result.calibration_error:.2%}"
        made.append((f"{result.confidence.mean():.1%}", "mean confidence", remark))
    if len(result.members) > 1:
        agree = (np.stack([m.labels for m in result.members]) == result.members[0].labels).all(axis=0).mean()
        made.append((f"{agree:.1%}", "members agree", f"all {len(result.members)} on one label"))
    if "flipped_previous" in result.board:
        made.append((result.board["flipped_previous"], "labels flipped", "against the previous submission"))
    return made


def every(result: Result) -> list[Section]:
    """All sections that the result knows enough for, in reading order."""
    makers = (
        classes,
        confusion,
        advice,
        pictures,
        mistakes,
        uncertain,
        members,
        reliability,
        features,
        prompts,
        provenance,
    )
    return [section for make in makers if (section := make(result))]


def classes(result: Result) -> Section:
    """Per-class accuracy where truth is known, else the histogram of predictions."""
    names = result.class_names
    if result.truth is None:
        table = Table(("class", "predicted", "share"), histogram(names, result.counts.tolist()))
        return Section("Classes", "How often each class is predicted; the truth is not known here.", [table])
    found = result.per_class
    rows = [
        (
            name,
            number(int(found.true[c])),
            number(int(result.counts[c])),
            percent(found.recall[c]),
            percent(found.precision[c], bar=False),
            percent(found.f1[c], bar=False),
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
        blocks.append(_grid(result, np.concatenate(examples)))
    note = "Shades grow with the share of the true class. Below, two examples of each of the most confused pairs."
    return Section("Confusion", note, blocks)


def advice(result: Result) -> Section | None:
    """What to look at before the next submission, as `make advise` says it; without truth and scores of its own."""
    if result.shares is None or not result.made:
        return None
    names = result.class_names
    columns = ("class", "predicted", "expected", "off", *["fragile"] * (result.fragile is not None))
    rows = []
    for c, name in enumerate(names):
        row = [
            name,
            number(int(result.counts[c])),
            number(round(float(result.expected[c]))),
            number(result.off_prior[c], f"{result.off_prior[c]:+.1f}"),
        ]
        hang = [] if result.fragile is None else [number(int((result.fragile & (result.labels == c)).sum()))]
        rows.append((*row, *hang))
    blocks = [Table(columns, rows)]
    if result.changes:
        blocks.append(Table(("against", "can the public board see it?"), [(c.against, c.seen) for c in result.changes]))
    table = result.two_way
    if len(result.members) > 1 and len(names) <= DENSE:
        texts = [[str(n) if n else "" for n in row] for row in table]
        shades = table / max(1, table.max()) * 0.8
        blocks.append(Matrix(names, names, texts, shades.tolist(), corner="label ↓ a member says →"))
    top = result.doubtful[:TILES]
    details = [f"lead {result.margin[row]:.0%}, {result.dissent[row]:.0%} dissent" for row in top]
    note = (
        f"No label was looked at. Expected: {result.expectation}. Off: standard errors of a random sample; "
        f"{result.moved_by_prior:,} labels at least would have to change. Fragile: images whose label changes when "
        "some one prompt is left out. The matrix: images that a member labels otherwise. Below, the smallest "
        "leads, those that members dispute first."
    )
    return Section("Advice", note, [*blocks, _grid(result, top, details)])


def pictures(result: Result) -> Section:
    """Images of every predicted class."""
    each = max(1, 2 * TILES // len(result.class_names))
    found = [np.flatnonzero(result.labels == label) for label in range(len(result.class_names))]
    rows = [own[np.linspace(0, len(own) - 1, min(each, len(own))).astype(int)] for own in found]
    return Section(
        "Images",
        f"{_how(result)}, evenly picked from every predicted class.",
        [_grid(result, np.concatenate(rows)[: 4 * TILES])],
    )


def mistakes(result: Result) -> Section | None:
    """Wrong labels that the ensemble was sure of."""
    if result.truth is None or result.shares is None or result.right.all():
        return None
    wrong = np.flatnonzero(~result.right)
    rows = wrong[np.argsort(-result.confidence[wrong], kind="stable")][:TILES]
    note = "Wrong labels of the highest confidence: the truth is wrong, or a class needs better words."
    return Section("Surest mistakes", note, [_grid(result, rows)])


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
    return Section(
        "Least certain", "The smallest lead of the best class over the second.", [_grid(result, rows, details)]
    )


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
    note = "Each member's own labels. The matrix: share of images that two label differently; below, some of those."
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
    return [_grid(result, rows, details)] if len(rows) else []


def _letter(position: int) -> str:
    return chr(ord("A") + position) if position < 26 else f"M{position + 1}"


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


def features(result: Result) -> Section | None:
    """How the images lie among each other and to the classes' texts, as the members see them."""
    spaces = [space for space in result.spaces if len(space.features) >= LEAST]
    if not spaces:
        return None
    weights = {member.name: member.weight for member in result.members}
    space = max(spaces, key=lambda space: weights.get(space.member) or 0)
    points, prototypes = embedded(space)
    labels = (result.labels if result.truth is None else result.truth)[space.rows]
    what = "predicted" if result.truth is None else "true"
    drawn = "" if len(space.rows) == len(result.labels) else f" {len(space.rows):,} of {len(result.labels):,} images."
    caption = (
        f"t-SNE of {space.member}: a dot is an image in the colour of its {what} class, a diamond the mean text "
        f"feature of a class (both sides centred).{drawn}"
    )
    svg = charts.scatter(points, labels, prototypes, result.class_names)
    curves = {space.member: explained_variance(space.features) for space in spaces}
    note = "Groups far from their diamond are images that the prompts do not describe."
    return Section(
        "Features",
        note,
        [
            Figure(svg, caption, width=720),
            Figure(charts.elbow(curves), "How many principal components the image features use.", width=480),
        ],
    )


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


def provenance(result: Result) -> Section | None:
    """How it was made: the main facts, and the submission's whole JSON."""
    made = result.made
    if not made:
        return None
    facts = {
        "recipe": made["recipe"]["name"],
        **_recipe(made["recipe"]),
        "uses": ", ".join(WORDS[use] for use in made.get("uses", [])) or "not noted",
        "data": made["data"],
        "images": f"{made['images']['count']:,} ({made['images']['digest']})",
        "prompts": f"{made['prompts']['count']:,} ({made['prompts']['digest']})",
        "digest": made["digest"],
        **surroundings(made),
    }
    rows = [(key, str(value)) for key, value in facts.items()]
    rows += [(f"member {name}", f"{how_seen(member)}, {member['digest']}") for name, member in made["members"].items()]
    text = json.dumps(made, indent=1, ensure_ascii=False)
    return Section(
        "Provenance",
        "How this was made; enough to make it again.",
        [Table(("what", "value"), rows), Details("The whole JSON", text)],
    )


def _recipe(recipe: dict) -> dict:
    """Its keys and values; the members have lines of their own, and what is not as usual a line each."""
    usual = {key: field.default for key, field in Ensemble.model_fields.items()}
    return {
        key: yaml.safe_dump(value, default_flow_style=True, width=1000).strip() if isinstance(value, list) else value
        for key, value in recipe.items()
        if key in ("threshold", "pooling") or (key not in ("name", "members") and value not in (usual.get(key), []))
    }


def surroundings(made: dict) -> dict[str, str]:
    """Commit and versions, as submit.surroundings has them, in words."""
    git = made.get("git") or {}
    return {
        "commit": f"{git['commit'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else "none",
        "versions": ", ".join(f"{package} {version}" for package, version in made["versions"].items()),
    }


def how_seen(member: dict) -> str:
    """A member's preprocessing and dtype in words."""
    preprocess = member["preprocess"]
    ops = ", ".join(op if argument is None else f"{op} {argument}" for op, argument in preprocess["ops"])
    if "views" in preprocess:
        seen = ", ".join(view if argument is None else f"{view} {argument}" for view, argument in preprocess["views"])
        ops = f"views {seen}; {ops}"
    return f"{ops} at {member['preprocess']['size']} pixels, {member['dtype']}"


def _how(result: Result) -> str:
    return (
        "Predicted class"
        + ("" if result.truth is None else " (true class)")
        + (" with its share of the probabilities" if result.shares is not None else "")
    )


def _grid(result: Result, rows: Sequence[int], details: Sequence[str] | None = None) -> Grid:
    """Thumbnails captioned 'predicted (true)', with the score below unless `details` says something else."""
    tiles = []
    for position, row in enumerate(rows):
        name, state = result.class_names[result.labels[row]], ""
        if result.truth is not None:
            state = "right" if result.right[row] else "wrong"
            name = f"{name} ({result.class_names[result.truth[row]]})"
        detail = details[position] if details else "" if result.shares is None else f"{result.confidence[row]:.1%}"
        tiles.append(Tile(small_picture(partial(result.open_image, row)), name, detail, result.ids[row], state))
    return Grid(tiles)
