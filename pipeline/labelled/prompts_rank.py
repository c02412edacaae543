"""Verb prompts-rank: what each template and each prompt adds, on cached features only.

With labels (of a development split): by the accuracy that is lost without it, and greedily forward. Without labels: by
how sure a template is alone and how often it agrees with all of them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np

from ..chain import damage, prompt_weights
from ..chain.prompt_weights import WEIGHTINGS
from ..chain.task import Task
from ..core.console import say, tell
from ..core.files import atomic_file
from ..core.tables import markdown, table
from ..maths.metrics import Interval
from ..recipes.member import Member
from .choosing import is_reported, refuse_test_labels, sampled_rows, sampled_truth
from .prompt_subsets import SubsetScorer, forward, judge, shortest_best, without_each

SHOWN = 5  # rows at each end of a table on the terminal; the file has all
MOST_PROMPTS = 1000  # above this only the classes' own sentences are ranked one by one


@dataclass(frozen=True)
class Ranked:
    """What is ranked of a task's prompts: its templates, and single prompts. Subsets are masks (P,)."""

    task: Task
    scorer: SubsetScorer

    @cached_property
    def template_of(self) -> np.ndarray:
        """Of each prompt (P,); '' for a class's own sentence."""
        return np.array(self.task.prompts.templates)

    @cached_property
    def templates(self) -> list[str]:
        return [text for text in dict.fromkeys(self.task.prompts.templates) if text]

    @cached_property
    def by_template(self) -> list[np.ndarray]:
        return [self.template_of == template for template in self.templates]

    @cached_property
    def prompts(self) -> list[int]:
        """The prompts that are ranked one by one."""
        columns = range(len(self.template_of))
        return list(columns) if len(columns) <= MOST_PROMPTS else [n for n in columns if not self.template_of[n]]

    @cached_property
    def by_prompt(self) -> list[np.ndarray]:
        return [np.arange(len(self.template_of)) == number for number in self.prompts]

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,), with all prompts."""
        return self.scorer.labels(np.ones(len(self.template_of), bool))

    def named(self, prompt: int) -> tuple[str, str]:
        """(class, text) of a prompt."""
        known = self.task.prompts
        return self.task.class_names[known.prompt_class[prompt]], known.prompts[prompt]


def rank_prompts(task: Task, member: Member, pooling: str, labelled: bool, test_labels: bool = False) -> Path:
    """Rank the task's prompts; print the tables and write them as Markdown beside the cached features."""
    if labelled:
        refuse_test_labels(task, test_labels, "SPLIT={}", "UNLABELLED=1")
    ranked = Ranked(task, SubsetScorer(task, member, pooling))
    damage.report(task, [member.preprocess])
    parts = (
        [_added_by_templates, _greedy_templates, _added_by_prompts] if labelled else [_sure_templates, _moving_prompts]
    )
    blocks = [_head(task, member, pooling, labelled), *(part(ranked) for part in parts), *_weights(ranked, member)]
    text = "\n\n".join(filter(None, blocks))
    name = f"prompts-rank-{member}-{'labelled' if labelled else 'unlabelled'}.md"
    with atomic_file(task.cache / name) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    tell(_ends(text))
    counts = f"{len(ranked.templates)} templates, {len(task.prompts.prompts)} prompts"
    say("prompts-rank", member, f"{counts}: {task.cache / name}")
    return task.cache / name


def _ends(text: str) -> str:
    """The text for a terminal; of long tables the first and the last rows: what helps most, and what harms most."""
    lines: list[str] = []
    for in_table, group in groupby(text.split("\n"), key=lambda line: line.startswith("|")):
        found = list(group)
        if in_table:
            header, _, *rows = ([cell.replace("\\|", "|") for cell in line[2:-2].split(" | ")] for line in found)
            if len(rows) > 2 * SHOWN + 1:
                rows[SHOWN:-SHOWN] = [[f"... {len(rows) - 2 * SHOWN} more", *[""] * (len(header) - 1)]]
            found = [table(header, rows)]
        lines += found
    return "\n".join(lines)


def _head(task: Task, member: str, pooling: str, labelled: bool) -> str:
    if not labelled:
        looked = "No label was looked at."
    elif is_reported(task):
        looked = "**Test labels were looked at**: results with prompts chosen from this on the same split are too good."
    else:
        looked = f"Labels of {task.split!r} were looked at, no test label."
    return (
        f"# Prompts of {member}\n\n{len(sampled_rows(task))} images, {task.looked_at}; pooling {pooling}; "
        f"intervals are 95 %, paired bootstrap. {looked}"
    )


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """A heading and its table; '' for a table without rows."""
    return "\n\n".join(filter(None, (f"## {title}", markdown(header, rows), note))) if rows else ""


def _added_by_templates(ranked: Ranked) -> str:
    if not ranked.templates:
        return ""
    truth, always = sampled_truth(ranked.task), ranked.template_of == ""
    added = without_each(ranked.scorer, ranked.by_template, truth)
    alone = [judge(ranked.scorer, part | always, truth).right.mean() for part in ranked.by_template]
    order = sorted(range(len(added)), key=lambda n: (added[n].value, alone[n]), reverse=True)
    rows = [(ranked.templates[n], _signed(added[n]), f"{alone[n]:.4f}") for n in order]
    return _section("Templates by what each adds to the others", ("template", "adds", "alone"), rows)


def _greedy_templates(ranked: Ranked) -> str:
    if not ranked.templates:
        return ""
    steps = forward(ranked.scorer, ranked.by_template, ranked.template_of == "", sampled_truth(ranked.task))
    rows = [
        (ranked.templates[n], f"{score.value:.4f} ({score.low:.4f} to {score.high:.4f})", _signed(gain) if k else "")
        for k, (n, score, gain) in enumerate(steps)
    ]
    yaml = "\n".join(["templates:", *(f"  - {_quoted(ranked.templates[n])}" for n in shortest_best(steps))])
    note = (
        "Accuracies are of the images the choice is made on, and so too good. The first of the highest:\n\n"
        f"```yaml\n{yaml}\n```"
    )
    return _section("Templates in greedy order", ("template", "accuracy", "gain"), rows, note)


def _added_by_prompts(ranked: Ranked) -> str:
    if not ranked.prompts:
        return ""
    added = without_each(ranked.scorer, ranked.by_prompt, sampled_truth(ranked.task))
    found = sorted(zip(ranked.prompts, added, strict=True), key=lambda pair: -pair[1].value)
    rows = [(*ranked.named(n), _signed(gain)) for n, gain in found]
    return _section("Prompts by what each adds to the others", ("class", "prompt", "adds"), rows)


def _sure_templates(ranked: Ranked) -> str:
    found = []
    for template, part in zip(ranked.templates, ranked.by_template, strict=True):
        probs = ranked.scorer.class_probs(part)
        found.append(((probs.argmax(axis=1) == ranked.labels).mean(), probs.max(axis=1).mean(), template))
    rows = [(template, f"{agrees:.4f}", f"{sure:.4f}") for agrees, sure, template in sorted(found, reverse=True)]
    header = ("template", "agrees with all together", "confidence")
    return _section("Templates by agreement and confidence", header, rows)


def _moving_prompts(ranked: Ranked) -> str:
    moved = [int((ranked.scorer.labels(~part) != ranked.labels).sum()) for part in ranked.by_prompt]
    found = sorted(zip(ranked.prompts, moved, strict=True), key=lambda pair: -pair[1])
    rows = [(*ranked.named(n), str(count)) for n, count in found]
    return _section("Prompts by the labels that each moves", ("class", "prompt", "labels moved"), rows)


def _weights(ranked: Ranked, member: Member) -> list[str]:
    """How the weightings of ensemble recipes weigh the templates and prompts, 1 on average in each class."""
    task, names = ranked.task, [name for name in WEIGHTINGS if name != "uniform"]
    found = {name: np.array(prompt_weights.of_member(task, member, task.prompts, name)) for name in names}
    first = names.index("zpe")
    means = [
        (text, [found[name][part].mean() for name in names])
        for text, part in zip(ranked.templates, ranked.by_template, strict=True)
    ]
    of_templates = [
        (text, *map("{:.3f}".format, values)) for text, values in sorted(means, key=lambda row: -row[1][first])
    ]
    of_prompts = [
        (*ranked.named(n), *(f"{found[name][n]:.3f}" for name in names))
        for n in sorted(ranked.prompts, key=lambda n: -found["zpe"][n])
    ]
    note = "zpe and carprt are found from these images, without labels; `prompt_weights:` of an ensemble uses them."
    return [
        _section("Weights of templates, mean over classes", ("template", *names), of_templates, note),
        _section("Weights of prompts", ("class", "prompt", *names), of_prompts, note),
    ]


def _signed(gain: Interval) -> str:
    return f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def _quoted(template: str) -> str:
    escaped = template.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
