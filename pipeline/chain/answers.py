"""What a competition asks for besides labels: probabilities, or the best few classes; a file each."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.console import say
from ..core.files import atomic_file
from ..core.tables import csv_text
from .csv_format import CsvFormat, as_shares, best_few
from .task import CompetitionTask

if TYPE_CHECKING:
    from torch import Tensor


def write(form: CsvFormat, name: str, number: int, values_NC: "Tensor | None") -> list[Path]:
    """Write what `also:` of the competition names for a submission, of the values that it was decided by.

    Nothing where it names nothing. Rows and ids are those of the submission; probabilities sum to 1 over the classes
    of a row.
    """
    task, also = form.task, form.task.recipe.also
    asked = {}
    if also.probabilities:
        asked["probabilities"] = form.labels, as_shares(values_NC)
    if also.top:
        column = "label" if task.recipe.gives_probabilities else form.columns[1]  # a pattern of names there
        asked[f"top{also.top}"] = [column], best_few(values_NC, form.labels, also.top)
    written = []
    for what, (columns, cells) in asked.items():
        rows = ([value, *cells[image]] for value, image in zip(form.order, form.images, strict=True))
        written.append(_saved(task, number, what, csv_text([form.columns[0], *columns], rows)))
    if written:
        say("submit", name, f"also {', '.join(map(str, written))}")
    return written


def _saved(task: CompetitionTask, number: int, what: str, text: str) -> Path:
    target = task.reports / f"{number:03d}-{what}.csv"
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return target
