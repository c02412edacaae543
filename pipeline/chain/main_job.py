"""The whole main job, forwards; start reading here.

    images -> pixels -> image features  |
    prompts ----------> text features   | -> probabilities -> blend -> threshold -> classes -> CSV

Each step up to the threshold is a declared `Stage` in a file of its own, cached apart. What is cached is reused.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from ..core.console import say
from ..core.errors import Damaged
from . import answers, classes, ensemble, features, labels, preprocess, provenance, threshold
from .csv_format import CsvFormat, warn_of_formulas
from .ledger import number_of
from .stage import Stage
from .suspicions import histogram, say_what_is_left_out, ties, warn_of_odd_histogram, warn_of_ties, warn_of_zeros
from .task import CompetitionTask, Task

FEW_CLASSES = 20  # whose counts are said in one line


def stages(task: Task, name: str) -> Iterator[Stage]:
    """The stages of ensemble recipe `name`; declaring them computes nothing. Some may come twice."""
    recipe = task.project.ensemble(name)
    for member in ensemble.members(recipe):
        yield preprocess.stage(task, member.tower.preprocess)  # images -> pixels
        yield features.stage(task, member)  # pixels -> image features
        yield ensemble.part(task, recipe, member)  # with text features (text.py) -> prompt probabilities
    if recipe.witness:
        yield preprocess.stage(task, recipe.witness.preprocess)
        yield features.stage(task, recipe.witness)  # for refinement alone
    yield ensemble.stage(task, name)  # all members -> blend
    yield threshold.stage(task, name)  # low values -> 0


def submit(task: CompetitionTask, name: str) -> Path:
    """Make, check, write and log the submission of a recipe; returns its CSV (the old one if nothing changed)."""
    form = CsvFormat(task)
    _check_beforehand(form)
    decision = _decided(task, name)  # runs the stages, pools prompts to classes, refines
    say_what_is_left_out(task)
    text, counts = form.text(decision.labels, decision.refined), histogram(task, decision.labels)
    form.check(text, decision.labels)
    if len(counts) <= FEW_CLASSES:
        say("submit", name, ", ".join(f"{class_name} {count}" for class_name, count in counts.items()))
    warn_of_odd_histogram(counts)
    _warn_of_ties(task, name, decision)
    warn_of_formulas(itertools.chain(form.header, form.labels, form.order))
    path = _written(form, name, text, decision, counts)
    if form.solution:
        say("submit", name, form.measured(decision.labels, decision.refined))
    answers.write(form, name, number_of(path), decision.refined)
    return path


def _decided(task: CompetitionTask, name: str) -> classes.Decision | labels.Labels:
    if labels.suffice(task, name):
        return labels.decide(task, name)
    decision = classes.decide(task, name)
    if not decision.refined.isfinite().all():
        raise Damaged(
            f"{task.project.ensemble_path(name)}: refine: class probabilities are not finite; nothing is written"
        )
    return decision


def _warn_of_ties(task: CompetitionTask, name: str, decision: classes.Decision | labels.Labels) -> None:
    if isinstance(decision, labels.Labels):
        warn_of_ties(decision.zero, decision.tied, decision.seen)
        return
    whole_N = classes.with_picture(task, task.project.ensemble(name))  # of the others it is told
    warn_of_ties(*ties(decision.refined[whole_N]), int(whole_N.sum()))
    if task.recipe.gives_probabilities:
        warn_of_zeros(decision.refined)


def _check_beforehand(form: CsvFormat) -> None:
    """What cannot work is told before hours of inference: ids, solution and log; `decide` begins with the rules."""
    _ = form.order, form.solution, form.ledger.log()


def _written(
    form: CsvFormat, name: str, text: str, decision: classes.Decision | labels.Labels, counts: dict[str, int]
) -> Path:
    ledger = form.ledger
    with ledger.locked():
        path = ledger.same_as(text)
        if path:
            ledger.note(path)
            say("submit", name, f"same content as submission {number_of(path)}, nothing new to upload: {path}")
        else:
            path = ledger.add(name, text, provenance.of_decision(form.task, name, decision, counts))
            changed = ledger.note(path)["flipped_previous"]
            flipped = "" if changed == "" else f", {changed} flipped against the previous"
            say("submit", name, f"{len(decision.labels)} rows{flipped}: {path}")
    return path
