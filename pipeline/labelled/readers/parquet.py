"""Parquet files with encoded images, as the hub of the `datasets` library stores them: train-00000-of-00001.parquet."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...core.errors import Damaged, NotFound, did_you_mean
from ...core.extras import need
from . import SPLITS, Row, reader


@reader
def parquet(path: Path, image: str = "image", label: str = "label") -> Iterator[Row]:
    """`path` is a file, or a folder with files named after their split; the arguments are names of columns."""
    need("data", "reader parquet")
    import datasets

    for file in [path] if path.is_file() else sorted(path.rglob("*.parquet")):
        try:
            table = datasets.Dataset.from_parquet(str(file))  # memory-mapped: only what is asked for is read
        except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
            raise Damaged(f"{file}: not a Parquet file that can be read: {error}") from None
        for name in (image, label):
            if name not in table.column_names:
                raise NotFound(f"{file}: no column {name!r}.{did_you_mean(name, table.column_names)}")
        if isinstance(table.features[image], datasets.Image):
            table = table.cast_column(image, datasets.Image(decode=False))
        names, split = getattr(table.features[label], "names", None), file.stem.partition("-")[0]
        for number, value in enumerate(table[label]):
            if value is None or (names and value < 0):  # -1 marks what is not labelled
                raise Damaged(f"{file}: row {number} has no {label}")
            yield Row(
                f"{file.name}/{image}/{number}",
                names[value] if names else str(value),
                SPLITS.get(split, split),
                file,
                partial(_encoded, table, image, number),
            )


def _encoded(table, column: str, number: int) -> bytes:
    value = table[number][column]
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(encoded, bytes):
        raise ValueError(f"column {column!r} holds no encoded image")
    return encoded
