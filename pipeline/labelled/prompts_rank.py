"""Verb prompts-rank: what each template and each prompt adds, on cached features only.

With labels (of a development split): by the accuracy that is lost without it, and greedily forward. Without labels: by
how sure a template is alone and how often it agrees with all of them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..chain import damage, features, probs, prompt_weights, text
from ..chain.columns import Columns
from ..chain.prompt_weights import WEIGHTINGS
from ..chain.task import Task
from ..core.console import say
from ..core.errors import UserError
from ..core.files import atomic_file
from ..core.tables import markdown
from ..maths import metrics, zeroshot
from ..maths.metrics import Interval
from ..recipes.member import Member
from .task import DatasetTask

MOST_IMAGES = 20_000  # of larger sets this many are ranked on, evenly picked
SHOWN = 5  # rows at each end of a table on the terminal; the file has all
MOST_PROMPTS = 1000  # above this only the classes' own sentences are ranked one by one


def picked(task: Task) -> np.ndarray:
    """The images that are looked at."""
    images = len(task.images.ids)
    return np.linspace(0, images - 1, min(images, MOST_IMAGES)).astype(int)


def truth_of(task: DatasetTask) -> np.ndarray:
    """Their labels."""
    return np.array(task.truth)[picked(task)]


@dataclass(frozen=True)
class Scorer:
    """Class probabilities of a member with any subset of its prompts; nothing is encoded twice."""

    task: Task
    member: Member
    pooling: str

    @cached_property
    def _features(self):
        seen, _ = features.of_member(self.task, self.member)
        return seen.rows("features", 0, len(seen.ids))[picked(self.task)]

    @cached_property
    def _text(self) -> text.Text:
        return text.of_prompts(self.task, self.member.model, self.task.prompts)[0]

    @cached_property
    def _columns(self) -> Columns:
        return Columns.of(self.task.prompts)

    @cached_property
    def _prompt_probs(self):
        """Of all prompts; leaving some out changes a row's values by one factor, and so no label."""
        return self._member_probs(self._text.features)

    def _member_probs(self, text_features):
        recipe = self.task.project.preprocess(self.member.preprocess)
        return probs.view_probs(recipe, self._features, text_features, self._text.logit_scale)

    def class_probs(self, keep: np.ndarray) -> np.ndarray:
        """(N, C) with the prompts `keep` (P, bool); a class that would lose all of its prompts keeps them."""
        labels, classes = self._columns.prompt_class, len(self.task.class_names)
        weights = self._columns.prompt_weight * torch.from_numpy(keep)
        left = torch.zeros(classes).index_add_(0, labels, weights)
        weights = torch.where(left[labels] > 0, weights, self._columns.prompt_weight)
        if self.pooling == "embedding":
            means = zeroshot.class_text_features(self._text.features, labels, weights, classes)
            return self._member_probs(means).numpy()
        try:
            return zeroshot.class_probs(self._prompt_probs, labels, weights, classes, self.pooling).numpy()
        except ValueError as error:
            raise UserError(str(error)) from None


@dataclass(frozen=True)
class Judged:
    """A subset of prompts on labelled images: which rows are right, and how probable the true class is."""

    right: np.ndarray
    certainty: float

    @property
    def rank(self) -> tuple[float, float]:
        """Accuracy; of equally accurate subsets the surer one is better."""
        return float(self.right.mean()), self.certainty


def judge(scorer: Scorer, keep: np.ndarray, truth: np.ndarray) -> Judged:
    """Compare a subset's labels with the truth."""
    probs = scorer.class_probs(keep)
    return Judged(probs.argmax(axis=1) == truth, float(probs[np.arange(len(truth)), truth].mean()))


def without_each(scorer: Scorer, parts: Sequence[np.ndarray], truth: np.ndarray) -> list[Interval]:
    """Accuracy that each part (P, bool) adds to all the others: with it minus without, paired interval."""
    whole = judge(scorer, np.ones_like(parts[0]), truth)
    return [metrics.difference(whole.right, judge(scorer, ~part, truth).right) for part in parts]


def forward(scorer: Scorer, parts: Sequence[np.ndarray], always: np.ndarray, truth: np.ndarray) -> list["Step"]:
    """All parts in greedy order: each time the one with which the chosen ones are right most often.

    Prompts in `always` (P, bool) are in from the start and are no part.
    """
    nothing = np.zeros(len(truth))
    steps: list[Step] = []
    rest, chosen, before = list(range(len(parts))), always, nothing
    while rest:
        tried = {number: judge(scorer, chosen | parts[number], truth) for number in rest}
        best = max(rest, key=lambda number: tried[number].rank)
        right = tried[best].right
        steps.append(Step(best, metrics.difference(right, nothing), metrics.difference(right, before)))
        rest.remove(best)
        chosen, before = chosen | parts[best], right
    return steps


class Step(NamedTuple):
    """One part of a greedy order: the accuracy with it and all before it, and what it gained."""

    part: int
    accuracy: Interval
    gain: Interval


def shortest_best(steps: Sequence[Step]) -> list[int]:
    """The parts up to the first step of the highest accuracy."""
    top = max(step.accuracy.value for step in steps)
    stop = next(number for number, step in enumerate(steps) if step.accuracy.value == top)
    return [step.part for step in steps[: stop + 1]]


def rank_prompts(task: Task, member: str, pooling: str, labelled: bool, test_labels: bool = False) -> Path:
    """Rank the task's prompts; print the tables and write them as Markdown beside the cached features."""
    if labelled:
        refuse_test_labels(task, test_labels, "SPLIT={}", "UNLABELLED=1")
    templates = [text for text in dict.fromkeys(task.prompts.templates) if text]
    scorer = Scorer(task, member, pooling)
    damage.report(task, [member.preprocess])
    of = np.array(task.prompts.templates)
    parts = [of == template for template in templates]
    blocks = (
        [*_ranked_templates(task, scorer, templates, parts, of == ""), _ranked_prompts(task, scorer)]
        if labelled
        else [_sure_templates(scorer, templates, parts), _moving_prompts(task, scorer)]
    )
    blocks += _weights(task, member)
    text = "\n\n".join([_head(task, member, pooling, labelled), *(block for block in blocks if block)])
    name = f"prompts-rank-{member}-{'labelled' if labelled else 'unlabelled'}.md"
    with atomic_file(task.cache / name) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(_ends(text))
    say("prompts-rank", member, f"{len(templates)} templates, {len(task.prompts.prompts)} prompts: {task.cache / name}")
    return task.cache / name


def _ends(text: str) -> str:
    """The text, of long tables the first and the last rows only: what helps most, and what harms most."""
    lines: list[str] = []
    for table, group in groupby(text.split("\n"), key=lambda line: line.startswith("|")):
        rows = list(group)
        if table and len(rows) > 2 + 2 * SHOWN + 1:
            rows[2 + SHOWN : -SHOWN] = [f"| ... {len(rows) - 2 - 2 * SHOWN} more |"]
        lines += rows
    return "\n".join(lines)


def _is_test(task: DatasetTask) -> bool:
    """Whether results are reported on the task's split."""
    return task.split in (task.recipe.split, "test")


def refuse_test_labels(task: Task, allowed: bool, split: str, instead: str) -> None:
    """UserError for a task without labels, or whose labels are those of the split that is reported.

    It tells to give another `split` (how that is written) or something `instead`.
    """
    if not task.labelled:
        raise UserError(f"a competition has no labels to rank with: give DATASET=name, or {instead}")
    if _is_test(task) and not allowed:
        dev = split.format(task.recipe.dev) if task.recipe.dev else f"another split, or 'dev:' in {task.where}"
        raise UserError(
            f"{task.where}: {task.split!r} is the split that is reported; its labels are not looked at. "
            f"Give {dev}, {instead}, or TEST_LABELS=1 if you mean it"
        )


def _head(task: Task, member: str, pooling: str, labelled: bool) -> str:
    if not labelled:
        looked = "No label was looked at."
    elif _is_test(task):
        looked = "**Test labels were looked at**: results with prompts chosen from this on the same split are too good."
    else:
        looked = f"Labels of {task.split!r} were looked at, no test label."
    return (
        f"# Prompts of {member}\n\n{len(picked(task))} images, {task.looked_at}; pooling {pooling}; intervals are "
        f"95 %, paired bootstrap. {looked}"
    )


def _ranked_templates(task: DatasetTask, scorer: Scorer, templates, parts, always) -> list[str]:
    truth = truth_of(task)
    if not templates:
        return []
    added = without_each(scorer, parts, truth)
    alone = [judge(scorer, part | always, truth).right.mean() for part in parts]
    order = sorted(range(len(parts)), key=lambda n: (added[n].value, alone[n]), reverse=True)
    lines = [(templates[n], _signed(added[n]), f"{alone[n]:.4f}") for n in order]
    steps = forward(scorer, parts, always, truth)
    path = [
        (templates[n], f"{score.value:.4f} ({score.low:.4f} to {score.high:.4f})", _signed(gain) if k else "")
        for k, (n, score, gain) in enumerate(steps)
    ]
    yaml = "\n".join(["templates:", *(f"  - {_quoted(templates[n])}" for n in shortest_best(steps))])
    return [
        f"## Templates by what each adds to the others\n\n{markdown(('template', 'adds', 'alone'), lines)}",
        f"## Templates in greedy order\n\n{markdown(('template', 'accuracy', 'gain'), path)}\n\n"
        "Accuracies are of the images the choice is made on, and so too good. The first of the highest:\n\n"
        f"```yaml\n{yaml}\n```",
    ]


def _one_by_one(task: Task) -> list[int]:
    """The prompts that are ranked alone."""
    columns = range(len(task.prompts.prompts))
    return list(columns) if len(columns) <= MOST_PROMPTS else [n for n in columns if not task.prompts.templates[n]]


def _parts(task: Task) -> list[np.ndarray]:
    every = np.arange(len(task.prompts.prompts))
    return [every == number for number in _one_by_one(task)]


def _ranked_prompts(task: DatasetTask, scorer: Scorer) -> str:
    if not _one_by_one(task):
        return ""
    added = without_each(scorer, _parts(task), truth_of(task))
    lines = [
        (task.class_names[task.prompts.prompt_class[n]], task.prompts.prompts[n], _signed(gain))
        for n, gain in sorted(zip(_one_by_one(task), added, strict=True), key=lambda p: -p[1].value)
    ]
    return f"## Prompts by what each adds to the others\n\n{markdown(('class', 'prompt', 'adds'), lines)}"


def _sure_templates(scorer: Scorer, templates, parts) -> str:
    if not templates:
        return ""
    together = scorer.class_probs(np.ones_like(parts[0])).argmax(axis=1)
    found = []
    for template, part in zip(templates, parts, strict=True):
        probs = scorer.class_probs(part)
        found.append(((probs.argmax(axis=1) == together).mean(), probs.max(axis=1).mean(), template))
    lines = [(template, f"{agrees:.4f}", f"{sure:.4f}") for agrees, sure, template in sorted(found, reverse=True)]
    header = ("template", "agrees with all together", "confidence")
    return f"## Templates by agreement and confidence\n\n{markdown(header, lines)}"


def _moving_prompts(task: Task, scorer: Scorer) -> str:
    parts = _parts(task)
    if not parts:
        return ""
    whole = scorer.class_probs(np.ones_like(parts[0])).argmax(axis=1)
    moved = [int((scorer.class_probs(~part).argmax(axis=1) != whole).sum()) for part in parts]
    lines = [
        (task.class_names[task.prompts.prompt_class[n]], task.prompts.prompts[n], str(count))
        for n, count in sorted(zip(_one_by_one(task), moved, strict=True), key=lambda p: -p[1])
    ]
    return f"## Prompts by the labels that each moves\n\n{markdown(('class', 'prompt', 'labels moved'), lines)}"


def _weights(task: Task, member: str) -> list[str]:
    """How the weightings of ensemble recipes weigh the templates and prompts, 1 on average in each class."""
    found = {name: np.array(prompt_weights.of_member(task, member, task.prompts, name)) for name in WEIGHTINGS}
    names = [name for name in found if name != "uniform"]
    of, note = (
        np.array(task.prompts.templates),
        ("zpe and carprt are found from these images, without labels; `prompt_weights:` of an ensemble uses them."),
    )
    templates = [text for text in dict.fromkeys(task.prompts.templates) if text]
    means = [(text, *(found[name][of == text].mean() for name in names)) for text in templates]
    lines = [
        (text, *map("{:.3f}".format, values))
        for text, *values in sorted(means, key=lambda row: -row[1 + names.index("zpe")])
    ]
    one_by_one = [
        (
            task.class_names[task.prompts.prompt_class[n]],
            task.prompts.prompts[n],
            *(f"{found[name][n]:.3f}" for name in names),
        )
        for n in sorted(_one_by_one(task), key=lambda n: -found["zpe"][n])
    ]
    tables = {
        "templates, mean over classes": (("template", *names), lines),
        "prompts": (("class", "prompt", *names), one_by_one),
    }
    return [f"## Weights of {what}\n\n{markdown(*table)}\n\n{note}" for what, table in tables.items() if table[1]]


def _signed(gain: Interval) -> str:
    return f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def _quoted(template: str) -> str:
    escaped = template.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
