"""Pages of training: a head's choice, its images per class, what it gets right; curves over k."""

import json
from pathlib import Path

import numpy as np

from ..chain.task import Runtime
from ..core.console import say
from ..core.files import atomic_file
from ..core.tables import table
from ..learn import kshot
from ..learn.reported import GZSL_HEADER, Measured, gzsl_rows, unseen_of
from ..learn.trained import Trained
from ..recipes import Training
from . import collect, page, sections
from .page import Details, Figure, Section, Table, charts, number, percent
from .result import Result

CURVES = {
    "acc1": "acc1",
    "macro_f1": "macro F1",
    "mean_per_class_recall": "recall",
    "gzsl": "harmonic mean",
    "unseen": "unseen",
    "seen": "seen",
}


def write_training(path: Path, recipe: Training, trained: list[Trained], measured: list[Measured]) -> None:
    """The page of a training run."""
    first, result = trained[0], _result(recipe, measured[0])
    parts = [_choice(one) for one in trained[:1]] + [_classes(recipe, first, result)]
    if "averages" in first.record:
        parts.append(_averages(first))
    if recipe.unseen:
        parts.append(_seen_unseen(measured, unseen_of(first)))
    parts += filter(None, (make(result) for make in (sections.confusion, sections.mistakes, sections.reliability)))
    parts.append(_provenance(recipe, first))
    learner = first.record.get("from", first.record["base"])
    page.write(
        path,
        f"Training {first.name}",
        f"{recipe.method[0]} on {learner}, {recipe.dataset}",
        sections.cards(result),
        parts,
    )


def _result(recipe: Training, one: Measured) -> Result:
    return Result(
        title=one.name,
        subtitle=one.task.split,
        stem=one.name,
        ids=one.task.images.ids,
        open_image=collect.opener(one.task),
        class_names=one.task.class_names,
        labels=one.predictions.top[:, 0],
        truth=np.array(one.task.truth),
        shares=one.probs.numpy(),
        subject="head",
    )


def _choice(trained: Trained) -> Section:
    """Learning curves, or validation measures over what was searched."""
    history, setting = trained.record["history"], trained.record["setting"]
    note = "Chosen on validation images: " + ", ".join(f"{key} {value:.4g}" for key, value in setting.items()) + "."
    by_epoch = [state for state in history if "epoch" in state]
    if by_epoch:
        x = [state["epoch"] for state in by_epoch]
        shown = {name: (x, [state[key] for state in by_epoch]) for key, name in CURVES.items() if key in by_epoch[0]}
        losses = {
            "training": (x, [state["train_loss"] for state in by_epoch]),
            "validation": (x, [state["loss"] for state in by_epoch]),
        }
        figures = [
            Figure(charts.curves(losses, "epoch", "loss"), "loss"),
            Figure(charts.curves(shown, "epoch", "validation"), "validation measures"),
        ]
        return Section("Learning curves", note, figures)
    columns = list(history[0])
    history = sorted(history, key=lambda state: not _same(state, setting))  # the chosen one is seen without scrolling
    rows = [
        ["chosen" if _same(state, setting) else "", *(number(state[key], f"{state[key]:.4g}") for key in columns)]
        for state in history
    ]
    names = [{**CURVES, "ece": "ECE"}.get(key, key.replace("_", " ")) for key in columns]
    return Section("Search", note, [Table(["choice", *names], rows)])


def _same(state: dict, setting: dict) -> bool:
    """Whether a state of the search is the one that was chosen."""
    known = state.keys() & setting.keys()
    return bool(known) and all(state[key] == setting[key] for key in known)


def _provenance(recipe: Training, trained: Trained) -> Section:
    """How it was trained: the recipe, and what is recorded besides its history."""
    facts = {key: value for key, value in trained.record.items() if key not in ("history", "averages", "classes")}
    made = {"recipe": recipe.model_dump(mode="json"), "record": facts}
    rows = [(key, str(value)) for key, value in facts.items() if isinstance(value, (str, int, float))]
    text = json.dumps(made, indent=1, ensure_ascii=False, default=str)
    blocks = [Table(("what", "value"), rows)] if rows else []
    return Section("Provenance", "How this was trained.", [*blocks, Details("The whole recipe and record", text)])


def _averages(trained: Trained) -> Section:
    """Validation measures of the averages of initial and trained weights."""
    sweep = trained.record["averages"]
    x = [one["alpha"] for one in sweep]
    lines = {name: (x, [one[key] for one in sweep]) for key, name in CURVES.items() if key in sweep[0]}
    note = "Weights (1 - alpha) x initial + alpha x trained: 0 is what training started from, 1 the best epoch."
    return Section("Weight averages", note, [Figure(charts.curves(lines, "alpha", "validation"), "WiSE-FT")])


def _classes(recipe: Training, trained: Trained, result: Result) -> Section:
    recall, true = result.per_class.recall, result.per_class.true
    rows = [
        (
            name,
            number(images["train"]),
            number(images["validation"]),
            number(int(true[c])),
            percent(recall[c]),
            "few images" if images["train"] < recipe.small else "",
        )
        for c, (name, images) in enumerate(trained.record["classes"].items())
    ]
    note = (
        f"Macro F1 and mean recall count every class the same. A class with fewer than {recipe.small} training "
        "images is marked."
    )
    return Section("Classes", note, [Table(("class", "training", "validation", "test", "recall", "remark"), rows)])


def _seen_unseen(measured: list[Measured], unseen: np.ndarray) -> Section:
    rows = [[row[0], *(number(float(value), value) for value in row[1:])] for row in gzsl_rows(measured, unseen)]
    note = (
        f"{int(unseen.sum())} classes were never trained on; all {len(unseen)} are candidates. The bias, chosen "
        "on validation classes, is subtracted from seen logits. AUSUC: area under the curve."
    )
    return Section("Seen and unseen", note, [Figure(seen_unseen_plot(measured, unseen)), Table(GZSL_HEADER, rows)])


def seen_unseen_plot(measured: list[Measured], unseen: np.ndarray, standalone: bool = False) -> str:
    """Seen over unseen accuracy, a curve per head, with a dot at the chosen bias."""
    curves = {one.name: one.curve(unseen) for one in measured}
    lines = {name: (curve.unseen, curve.seen) for name, curve in curves.items()}
    dots = {one.name: curves[one.name].at(one.bias)[1::-1] for one in measured}
    svg = charts.curves(lines, "accuracy of unseen classes", "accuracy of seen classes", dots=dots)
    return charts.standalone(svg) if standalone else svg


def kshot_plot(result, standalone: bool = False, name: str = "acc1") -> str:
    """Mean over seeds and its interval over k, a line per method; zero-shot as a horizontal line."""
    ks = list(result.distinct)
    found = {method: [result.interval(method, k, name) for k in ks] for method in result.values}
    lines = {method: (ks, [value.value for value in values]) for method, values in found.items()}
    bands = {method: ([v.low for v in values], [v.high for v in values]) for method, values in found.items()}
    levels = {"zero-shot": result.zero_shot[name]} if result.zero_shot else {}
    svg = charts.curves(lines, "training images per class", name, bands=bands, levels=levels, doubling=True)
    return charts.standalone(svg) if standalone else svg


def seeds(result: kshot.Curves) -> int:
    """How many samples of each k there are."""
    return max(len(measured) for by_k in result.values.values() for measured in by_k.values())


def _kshot_page(path: Path, result: kshot.Curves) -> None:
    """The page of k-shot curves."""
    blocks = [
        Figure(
            kshot_plot(result),
            f"acc1 on {result.images:,} images of {result.dataset}, mean over {seeds(result)} seeds with its 95 % "
            "interval",
            width=640,
        )
    ]
    parts = [Section("Curves", "One image more per class, how much better?", blocks)]
    for name, text in (("acc1", "Accuracy"), ("macro_f1", "Macro F1")):
        note = "Mean over seeds, ± half of the 95 % interval. A class of fewer than k images gives some of them again."
        parts.append(Section(text, note, [Table(kshot.header(result), kshot.rows(result, name))]))
    zero = [(f"{result.zero_shot['acc1']:.2%}", "zero-shot acc1", "")] if result.zero_shot else []
    page.write(path, f"k-shot {result.member}", result.dataset, zero, parts)


def write_kshot(task: Runtime, result: kshot.Curves) -> None:
    """Write and print the curves: page, plot, table and CSV."""

    stem = task.project.root / "reports" / "training" / f"kshot-{result.member}-{result.dataset}"
    texts = {
        ".csv": kshot.to_csv(result),
        ".md": kshot.to_markdown(result),
        ".svg": kshot_plot(result, standalone=True),
    }
    for suffix, text in texts.items():
        with atomic_file(stem.with_name(stem.name + suffix)) as temporary:
            temporary.write_bytes(text.encode())
    _kshot_page(stem.with_name(stem.name + ".html"), result)
    print(table(kshot.header(result), kshot.rows(result)))
    if result.zero_shot:
        say("kshot", result.member, f"zero-shot acc1 {result.zero_shot['acc1']:.3f}")
    say("kshot", result.member, f"{result.images} images of {result.dataset}: {stem}.html, .svg, .md, .csv")
