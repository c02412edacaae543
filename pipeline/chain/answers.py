"""What a competition asks for besides labels: probabilities, or the best few classes; a file each."""

from pathlib import Path

from ..core.console import say
from ..core.files import atomic_file
from ..core.tables import csv_text
from . import classes
from .csv_format import CsvFormat, as_shares, best_few
from .task import CompetitionTask


def write(task: CompetitionTask, number: int, name: str) -> list[Path]:
    """Write what `also:` of the competition names for submission `number` of recipe `name`; nothing where it has none.

    Rows and ids are those of the submission; probabilities sum to 1 over the classes of a row.
    """
    also = task.recipe.also
    if not (also.probabilities or also.top):
        return []
    form, refined = CsvFormat(task), classes.decide(task, name).refined
    row_of, labels = {value: row for row, value in enumerate(form.ids)}, form.labels
    asked = {}
    if also.probabilities:
        asked["probabilities"] = labels, as_shares(refined)
    if also.top:
        asked[f"top{also.top}"] = [form.columns[1]], best_few(refined, labels, also.top)
    written = []
    for what, (columns, cells) in asked.items():
        text = csv_text([form.columns[0], *columns], [[i, *cells[row_of[i]]] for i in form.order])
        written.append(_saved(task, number, what, text))
    say("submit", name, f"also {', '.join(map(str, written))}")
    return written


def _saved(task: CompetitionTask, number: int, what: str, text: str) -> Path:
    target = task.reports / f"{number:03d}-{what}.csv"
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return target
