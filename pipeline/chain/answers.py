"""What a competition asks for besides labels: probabilities, or the best few classes; a file each."""

from pathlib import Path

from ..core.console import say
from ..core.files import atomic_file
from ..core.tables import csv_text
from . import classes
from .csv_format import CsvFormat
from .task import CompetitionTask


def write(task: CompetitionTask, number: int, name: str) -> list[Path]:
    """Write what `also:` of the competition names for submission `number` of recipe `name`; nothing where it has none.

    Rows and ids are those of the submission; probabilities sum to 1 over the classes of a row.
    """
    also = task.recipe.also
    if not (also.probabilities or also.top):
        return []
    form, refined = CsvFormat(task), classes.decide(task, name).refined
    shares = refined / refined.sum(dim=1, keepdim=True).clamp_min(1e-12)
    row_of, labels = {value: row for row, value in enumerate(form.ids)}, form.labels
    order, written = [row_of[value] for value in form.order], []
    if also.probabilities:
        header = [form.columns[0], *labels]
        rows = [[form.ids[row], *(f"{share:.6g}" for share in shares[row].tolist())] for row in order]
        written.append(_saved(task, number, "probabilities", csv_text(header, rows)))
    if also.top:
        best = shares.sort(dim=1, descending=True, stable=True).indices[:, : also.top].tolist()
        rows = [[form.ids[row], " ".join(labels[label] for label in best[row])] for row in order]
        written.append(_saved(task, number, f"top{also.top}", csv_text(list(form.columns), rows)))
    say("submit", name, f"also {', '.join(map(str, written))}")
    return written


def _saved(task: CompetitionTask, number: int, what: str, text: str) -> Path:
    target = task.reports / f"{number:03d}-{what}.csv"
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return target
