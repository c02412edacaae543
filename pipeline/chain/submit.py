"""Stage submit: decide, take the argmax, check, write the CSV with how it was made, log it.

Either a file that passes every check is written, or none.
"""

import functools
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..core.console import say, warn
from ..core.errors import UserError, did_you_mean
from ..maths import metrics
from ..recipes import unsafe
from ..recipes.prompts import PromptSet
from . import decide, ensemble, infer, problems, rules
from .submissions import Submissions, csv_text, formulas, number_of, parse_csv, predictions, read_csv, read_predictions
from .task import Task

PACKAGES = ("torch", "open_clip_torch", "transformers", "pillow", "numpy", "accelerate")


def submissions_of(task: Task) -> Submissions:
    """The task's submissions folder."""
    columns = task.competition.id_column, task.competition.label_column
    return Submissions(task.project.root / "submissions" / task.competition_name, columns)


@functools.cache
def id_values(task: Task) -> tuple[str, ...]:
    """What the id column holds for each image, in natural order; UserError when they are not unique."""
    kind = task.competition.columns[task.competition.id_column]
    make = {"position": lambda i, _: str(i), "stem": lambda _, p: Path(p).stem, "file_name": lambda _, p: Path(p).name}
    values = [make[kind](position, name) for position, name in enumerate(task.images.ids)]
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise UserError(f"{task.where}: columns: {kind} is not unique over the images, e.g. {twice[:3]}")
    broken = [value for value in values if unsafe(value)]
    if broken:
        raise UserError(
            f"{task.where}: columns: line breaks, control characters or bytes that are no UTF-8 in "
            f"{broken[:3]}; rename the files, or identify images by position"
        )
    return tuple(values)


def label_values(task: Task) -> list[str]:
    """What the label column holds for each class, in label order."""
    kind = task.competition.columns[task.competition.label_column]
    return list(task.class_names) if kind == "class_name" else [str(label) for label in range(len(task.class_names))]


@functools.cache
def row_order(task: Task) -> tuple[str, ...]:
    """The ids in the order of the submission's rows: the sample submission's, else the images'.

    UserError when the sample submission has other columns or other ids than the images give.
    """
    ids, competition = id_values(task), task.competition
    if not competition.sample_submission:
        return ids
    path = task.project.root / competition.sample_submission
    header, rows = read_csv(path)
    if header != list(competition.columns):
        raise UserError(f"{task.where}: columns are {','.join(competition.columns)}, but {path} has {','.join(header)}")
    order = tuple(predictions(header, rows, (competition.id_column, competition.label_column), str(path)))
    if set(order) != set(ids):
        absent, extra = sorted(set(order) - set(ids))[:3], sorted(set(ids) - set(order))[:3]
        raise UserError(
            f"{path} has {len(order)} ids and the images give {len(ids)}. "
            f"Without image: {absent or 'none'}; without row: {extra or 'none'}"
        )
    return order


def to_csv(task: Task, labels: Sequence[int]) -> str:
    """The submission's text, one row per image."""
    by_id = dict(zip(id_values(task), labels, strict=True))
    names, header = label_values(task), list(task.competition.columns)
    is_id = [column == task.competition.id_column for column in header]
    return csv_text(header, [[i if at_id else names[by_id[i]] for at_id in is_id] for i in row_order(task)])


def check(task: Task, text: str) -> None:
    """Read a submission's text as the competition would; UserError for the first thing that is not right."""
    header, rows = parse_csv(text, "submission")
    if text != csv_text(header, rows):
        raise UserError("submission: blank lines, line ends or quotes that a plain CSV does not have")
    if header != list(task.competition.columns):
        raise UserError(f"submission: header is {header}, must be {list(task.competition.columns)}")
    values = predictions(header, rows, (task.competition.id_column, task.competition.label_column), "submission")
    if tuple(values) != row_order(task):
        raise UserError("submission: the ids are not those of the images, in their order")
    known = set(label_values(task))
    wrong = {i: value for i, value in values.items() if value not in known}
    if wrong:
        raise UserError(f"submission: labels that are no class: {dict(list(wrong.items())[:3])}")


def histogram(task: Task, labels: Sequence[int]) -> dict[str, int]:
    """{class name: predicted rows}, in label order."""
    counts = Counter(labels)
    return {name: counts[label] for label, name in enumerate(task.class_names)}


def warn_of_odd_histogram(counts: dict[str, int]) -> None:
    """A loud warning when a class is never predicted, or one for more than half of the images."""
    total = sum(counts.values())
    never = [name for name, count in counts.items() if count == 0]
    most = [name for name, count in counts.items() if count > total / 2]
    if never or most:
        said = [f"never predicted: {never}"] if never else []
        said += [f"more than half of the images are {most[0]!r}"] if most else []
        bars = [f"  {name:<24} {count:>8}  {'#' * round(40 * count / total)}" for name, count in counts.items()]
        warn("\n".join([f"CHECK BEFORE UPLOADING: {'; '.join(said)}", *bars]))


def provenance(task: Task, name: str, decision: decide.Decision, counts: dict[str, int]) -> dict:
    """How a submission was made: enough to make it again and to see what differs from another."""
    project, recipe = task.project, task.project.ensemble(name)
    made = {
        "competition": {"name": task.competition_name, **task.competition.model_dump(mode="json")},
        "data": task.source,
        "images": {"count": len(task.images.ids), "digest": task.images_digest},
        "recipe": {"name": name, **recipe.model_dump(mode="json")},
        "prompts": _prompts(task.prompts),
        "members": {},
        "uses": rules.uses(project, name),
        "refinement": [asdict(outcome) for outcome in decision.outcomes],
        "digest": decision.probs.digest,
        **surroundings(project.root),
        "histogram": counts,
        "damaged": [
            [task.images.ids[row], done, why]
            for row, done, why in problems.recorded(task, ensemble.preprocess_recipes(recipe))
            if done != problems.SEVERAL
        ],
    }
    for member in ensemble.members(recipe):
        own = recipe.members[member].prompts
        facts = {"prompts": {"set": own, **_prompts(ensemble.prompts_of(task, recipe, member))}} if own else {}
        digest = ensemble.part(task, recipe, member).digest
        made["members"][member] = {"digest": digest, **facts, **facts_of_member(task, member)}
    return made


def _prompts(prompts: PromptSet) -> dict:
    return {"count": len(prompts.prompts), "digest": prompts.digest}


def facts_of_member(task: Task, member: str) -> dict:
    """Checkpoint, dtype, and the two recipes of a member."""
    model, preprocess = infer.split(member)
    return {
        **infer.checkpoint(task, model),
        "model": task.project.model(model).model_dump(mode="json", exclude_none=True),
        "preprocess": task.project.preprocess(preprocess).content(),
    }


def surroundings(root: Path) -> dict:
    """What code it was made with: versions of packages, and the project's commit."""
    return {"versions": _versions(), "git": _git(root)}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _git(root: Path) -> dict | None:
    """Commit and whether anything tracked was changed since; None outside a git repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain", "-uno").strip())}
    except (OSError, subprocess.CalledProcessError):
        return None


def truth(task: Task) -> list[int] | None:
    """The solution's labels in image order, where the competition has one."""
    if not task.competition.solution:
        return None
    path = task.project.root / task.competition.solution
    values = read_predictions(path, (task.competition.id_column, task.competition.label_column))
    labels, ids = {value: label for label, value in enumerate(label_values(task))}, id_values(task)
    absent = [i for i in ids if i not in values]
    if absent:
        raise UserError(
            f"{path}: does not fit the images: {len(absent)} of {len(ids)} are not in it, first "
            f"{', '.join(map(repr, absent[:3]))}"
        )
    unknown = {i: values[i] for i in ids if values[i] not in labels}
    if unknown:
        known = did_you_mean(next(iter(unknown.values())), labels)
        raise UserError(
            f"{path}: does not fit the classes: {len(unknown)} labels are no class, first "
            f"{dict(list(unknown.items())[:3])}.{known}"
        )
    return [labels[values[i]] for i in ids]


def warn_of_formulas(values: Iterable[str]) -> None:
    """A loud warning of values of a CSV that a spreadsheet program would run; the file keeps them as they are.

    A leaderboard looks for exactly these ids and labels, so nothing is escaped.
    """
    found = formulas(values)
    if found:
        warn(
            f"{len(found)} values in the CSV begin as a formula does, first {', '.join(map(repr, found[:3]))}: "
            "do not open it in a spreadsheet program, which would run them"
        )


def warn_of_ties(class_probs_NC) -> None:
    """A warning when the first class wins only because it comes first: its probability is another class's as well."""
    best_N = class_probs_NC.amax(dim=1)
    zero = int((best_N <= 0).sum())
    tied = int(((class_probs_NC == best_N[:, None]).sum(dim=1) > 1).sum()) - zero
    if zero:
        warn(
            f"{zero} of {len(best_N)} images have no probability above the threshold for any class, and get the "
            "first; lower the threshold"
        )
    if tied:
        warn(f"{tied} of {len(best_N)} images have two classes of equal probability, and get the first of them")


def run(task: Task, name: str) -> Path:
    """Make, check, write and log the submission of a recipe; returns its CSV (the old one if nothing changed)."""
    # what cannot work is told before hours of inference
    rules.check(task, name)
    row_order(task)
    answer = truth(task)
    submissions = submissions_of(task)
    submissions.log()
    decision = decide.run(task, name)
    if not decision.refined.isfinite().all():
        raise UserError(f"ensembles/{name}.yaml: refine: class probabilities are not finite; nothing is written")
    labels = decision.labels
    text = to_csv(task, labels)
    check(task, text)
    counts = histogram(task, labels)
    if len(counts) <= 20:
        say("submit", name, ", ".join(f"{class_name} {count}" for class_name, count in counts.items()))
    warn_of_odd_histogram(counts)
    warn_of_ties(decision.refined)
    warn_of_formulas([*task.competition.columns, *label_values(task), *row_order(task)])
    with submissions.locked():
        path = submissions.same_as(text)
        if path:
            submissions.note(path)
            say("submit", name, f"same content as submission {number_of(path)}, nothing new to upload: {path}")
        else:
            path = submissions.add(name, text, provenance(task, name, decision, counts))
            changed = submissions.note(path)["flipped_previous"]
            flipped = "" if changed == "" else f", {changed} flipped against the previous"
            say("submit", name, f"{len(labels)} rows{flipped}: {path}")
    if answer:
        score = metrics.accuracy(labels, answer)
        noise = metrics.accuracy_noise(score, len(answer))
        say("submit", name, f"accuracy {score:.4f} (standard error {noise:.4f}) against {task.competition.solution}")
    return path
