"""What was submitted, what the leaderboard said, and whether it means anything."""

import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from ..core.console import say, signed, tell
from ..core.errors import Mismatch, UserError
from ..core.tables import table, table_rows
from ..maths import metrics
from .csv_format import CsvFormat
from .ledger import Ledger, as_text, number_of, upload_state
from .task import CompetitionTask

RECIPE = 16  # characters of a recipe's name in the log
OTHERWISE = "the board does not score the share of right labels, so what it can see of a flip is not known"
IDS = 32  # characters of the images' ids in a line


def show_log(task: CompetitionTask) -> None:
    """Print the log of a competition: a line of at most 80 columns each, and below it what else there is to say."""
    submissions = CsvFormat(task).ledger
    lines = submissions.log()
    if not lines:
        say("log", task.name, "no submissions yet; make submit writes the first")
        return
    best, known = submissions.best(), {number_of(path): path for path in submissions.files()}
    best_path = known.get(int(best["number"])) if best else None
    if best_path:  # scores arrive after the uploads, so what was the best then is not what is best now
        of_best = submissions.read(best_path)
        for line in lines:
            line["flipped_best"] = as_text(submissions.flipped(known.get(int(line["number"])), of_best))
    accuracy = _accuracies(task, known)
    header = ("no", "time", "recipe", "flipped", "vs best", *["accuracy"] * bool(accuracy), "public", "private")
    rows = []
    for line in lines:
        when, own = line["time"][5:16].replace("T", " "), [accuracy.get(int(line["number"]), "")] * bool(accuracy)
        flips = line["flipped_previous"], line["flipped_best"]
        rows.append((line["number"], when, _short(line["recipe"]), *flips, *own, line["public"], line["private"]))
    first, *told = table_rows(header, rows)
    print(first)
    remarks = submissions.remarks()
    for line, text in zip(lines, told, strict=True):
        print(text)
        number, state = int(line["number"]), upload_state(line)
        if best and line["number"] == best["number"]:
            print("    <- best public")
        if state not in ("", "scored"):
            print(f"    upload {state}")
        uses = submissions.made(number).get("uses", [])
        if set(uses) - {"image"}:
            print(f"    uses {', '.join(uses)}")
        if number in remarks:
            tell(f"    {remarks[number]}")
    if any(line["uploaded"] for line in lines):
        tell(f"uploads: {uploads(lines)}")


def uploads(lines: Sequence[dict[str, str]]) -> str:
    """How many of the log's submissions were uploaded and came how far; 'none', when none was."""
    found: dict[str, list[str]] = {"scored": [], "pending": [], "unanswered": [], "rejected": []}
    for line in lines:
        if state := upload_state(line):
            found[state].append(line["number"])
    words = [f"{len(numbers)} {state}" for state, numbers in found.items() if numbers]
    waiting = [*found["pending"], *found["unanswered"]]
    asked = f"; 'make scores' asks for {', '.join(waiting)}" if waiting else ""
    return f"{', '.join(words) or 'none'}{asked}"


def _short(name: str) -> str:
    return name if len(name) <= RECIPE else f"{name[: RECIPE - 3]}..."


def _accuracies(task: CompetitionTask, files: dict[int, Path]) -> dict[int, str]:
    """By number, where the competition has a solution; nothing of a submission that does not fit it."""
    if not task.recipe.solution:
        return {}
    form, found = CsvFormat(task), {}
    truth = form.predicted.read(task.project.root / task.recipe.solution)
    for number, path in files.items():
        with contextlib.suppress(UserError):
            said = form.ledger.read(path)
            if said and said.keys() <= truth.keys():
                found[number] = f"{sum(truth[i] == label for i, label in said.items()) / len(said):.4f}"
    return found


def remark(task: CompetitionTask, number: int, text: str) -> None:
    """Write down something about a submission, which `make log` shows; an empty text removes it."""
    submissions = CsvFormat(task).ledger
    with submissions.locked():
        submissions.path(number)
        remarks = submissions.remarks()
        before, now = remarks.get(number), " ".join(text.split())
        if now or before:
            submissions.write_remarks({**remarks, number: now})
    say("note", f"{task.name} {number}", now or (f"removed: {before}" if before else "had no note"))


def record(task: CompetitionTask, number: int, public: float | None, private: float | None) -> None:
    """Record leaderboard scores of a submission: from 0 to 1, or above where lower ones are better."""
    given = {"public": public, "private": private}
    if public is None and private is None:
        raise UserError("give PUBLIC= or PRIVATE=, e.g. make score N=12 PUBLIC=0.92024")
    for name, value in given.items():
        if value is not None and not 0 <= value <= (sys.float_info.max if task.recipe.lower_is_better else 1):
            raise UserError(
                f"{name.upper()}={value}: a score is a share between 0 and 1 (with 'lower_is_better: true' in "
                f"{task.where} any that is not negative)"
            )
    submissions = CsvFormat(task).ledger
    with submissions.locked():
        submissions.path(number)
        line = submissions.line(number)
        replaced = [f"{k} was {line[k]}" for k, v in given.items() if v is not None and line[k] not in ("", str(v))]
        line.update({name: str(value) for name, value in given.items() if value is not None})
        submissions.change(line)
    now = ", ".join(f"{name} {line[name]}" for name in given if line[name])
    say("score", f"{task.name} {number} {line['recipe']}", now + (f" ({', '.join(replaced)})" if replaced else ""))


def show_difference(task: CompetitionTask, a: int, b: int) -> None:
    """Print how many labels flipped from submission a to b, between which classes, and what the board can see."""
    form = CsvFormat(task)
    submissions, values = form.ledger, form.labels
    labels = {value: label for label, value in enumerate(values)}
    before, after = (submissions.read(submissions.path(number)) for number in (a, b))
    if before.keys() != after.keys():
        raise Mismatch(f"submissions {a} and {b} are about different images")
    try:
        pairs = {i: (labels[before[i]], labels[after[i]]) for i in after}
    except KeyError as error:
        raise Mismatch(f"label {error} of submission {a} or {b} is no class of {task.where}") from None
    moved = {i: pair for i, pair in pairs.items() if pair[0] != pair[1]}
    total = len(moved)
    tell(f"{total} of {len(pairs)} labels flipped from {a} to {b} ({total / len(pairs):.2%})")
    if moved:
        names = task.class_names
        images = {pair: [i for i, other in moved.items() if other == pair] for pair in moved.values()}
        found = sorted(images.items(), key=lambda kind: -len(kind[1]))
        rows = [(names[x], names[y], len(ids), _first(ids)) for (x, y), ids in found]
        print(table(("from", "to", "rows", "images"), rows))
    tell(_on_the_board(task, submissions, (a, b), total, len(pairs)))


def _first(ids: list[str]) -> str:
    """The first of some images, as many as fit in a line."""
    shown = [i for n, i in enumerate(ids) if sum(map(len, ids[: n + 1])) + n < IDS]
    return " ".join(shown or ids[:1]) + (" ..." if len(shown or ids[:1]) < len(ids) else "")


def public_board(task: CompetitionTask, images: int) -> tuple[int, str]:
    """How many of the `images` the public board scores, and that in words."""
    board = task.recipe.public_board or images
    stated = "" if task.recipe.public_board else f" (all; give public_board in {task.where} if it shows fewer)"
    return board, f"On {board} public images{stated}"


def board_of(task: CompetitionTask, images: int) -> int | None:
    """How many of the `images` the public board scores; None where its score is not the share of right labels."""
    return (task.recipe.public_board or images) if task.recipe.scores_labels else None


def board_sees(flipped: int, images: int, board: int | None) -> str:
    """What a board of `board` images sees of a change of `flipped` labels of all `images`, in words."""
    if board is None:
        return f"{flipped:,} labels differ; {OTHERWISE}"
    if not flipped:
        return "no label differs, the board would show the same"
    share = metrics.share_to_see(flipped, images, board)
    text = f"{flipped:,} labels differ, about {round(flipped * board / images):,} of the {board:,} on the public board"
    if share > 1:
        return f"{text}: too few to be seen through its noise, whatever they are"
    noise = metrics.difference_noise(flipped, images, board)
    return (
        f"{text}: seen through its noise (2 standard errors, {2 * noise:.5f}) only if at least {share:.0%} of them "
        "are for the better"
    )


def noise_in_words(noise: float, board: int) -> str:
    """What two standard errors mean."""
    return f"a difference in score below {2 * noise:.5f} ({2 * noise * board:.0f} images) would be noise"


def _on_the_board(
    task: CompetitionTask, submissions: Ledger, numbers: tuple[int, int], flipped: int, images: int
) -> str:
    lines = {int(line["number"]): line for line in submissions.log()}
    scores = [float(lines[n]["public"]) for n in numbers if n in lines and lines[n]["public"]]
    if not task.recipe.scores_labels:
        change = f"The score went {_coloured(task, scores[1] - scores[0])}. " if scores[1:] else ""
        return f"{change}{OTHERWISE.capitalize()}."
    board, seen = public_board(task, images)
    noise = metrics.difference_noise(flipped, images, board)
    if len(scores) < len(numbers):
        return f"{seen} {noise_in_words(noise, board)}. Record scores with: make score N=.. PUBLIC=.."
    change = scores[1] - scores[0]
    if abs(change) * board > flipped + 0.5:
        return (
            f"{seen} the scores differ by {abs(change) * board:.0f} images, but only {flipped} labels differ: "
            "one of the scores is mistyped, or public_board is wrong"
        )
    ratio = abs(change) / noise if noise else math.inf if change else 0.0
    verdict = "larger than noise (2 standard errors)" if ratio > 2 else "within noise (2 standard errors)"
    went = _coloured(task, change)
    return f"{seen} the score went {went} ({change * board:+.0f} images), {ratio:.1f} standard errors: {verdict}"


def _coloured(task: CompetitionTask, change: float) -> str:
    """A change of the score, green if it is for the better."""
    return signed(f"{change:+.5f}", -change if task.recipe.lower_is_better else change)
