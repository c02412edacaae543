"""The present view as a table of images: CSV or Parquet, which embedding-atlas and FiftyOne open."""

import io

import numpy as np

from ..chain.ledger import formulas
from ..core.errors import UserError
from ..core.tables import csv_text
from .session import Session
from .views import View

KINDS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


def table(session: Session, view: View) -> dict[str, list]:
    """Columns of the images of a view, in its order: path, label, margin, before, flipped, x and y on the map."""
    rows, result = session.rows(view).astype(int), session.result
    names, before = np.array(result.class_names, dtype=object), session.baseline.labels
    folder = getattr(result_images := session.first.images, "folder", None)
    paths = [str(folder / result_images.ids[row]) if folder else str(result_images.ids[row]) for row in rows]
    columns = {
        "path": paths,
        "label": names[result.labels[rows]].tolist(),
        "margin": [round(float(margin), 6) for margin in session.margin[rows]],
        "before": names[before[rows]].tolist(),
        "flipped": (before[rows] != result.labels[rows]).tolist(),
    }
    if result.truth is not None:
        columns["truth"] = names[result.truth[rows]].tolist()
    points = np.full((len(result.labels), 2), np.nan) if session.points is None else session.points
    return columns | {"x": points[rows, 0].tolist(), "y": points[rows, 1].tolist()}


def written(session: Session, view: View, kind: str) -> bytes:
    """The table as a file's content; UserError for another kind, and for names that Parquet cannot hold."""
    if kind not in KINDS:
        raise UserError("an export is csv or parquet")
    columns = table(session, view)
    if kind == "csv":
        found = formulas([*columns["path"], *session.result.class_names])
        if found:
            session.notices.append(f"{len(found)} values in the CSV begin as a formula does, first {found[0]!r}")
        return csv_text(list(columns), zip(*columns.values(), strict=True)).encode("utf-8", "surrogateescape")
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    except (UnicodeEncodeError, pyarrow.ArrowInvalid) as error:
        raise UserError(f"Parquet holds UTF-8 names alone; export CSV ({error})") from None
    return buffer.getvalue()
