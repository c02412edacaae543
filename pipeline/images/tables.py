"""Parquet files with a column of encoded images: bytes, or {bytes, path} as the `datasets` library writes it."""

from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from ..core.errors import Damaged, NotFound, Unavailable
from ..core.extras import need
from ..core.texts import Texts

IMAGE, ID = "image", "id"  # columns
LARGEST = 2 << 30  # bytes of the images of one row group, which is read at once


@dataclass(frozen=True)
class Group:
    """A row group's images."""

    column: Any  # of pyarrow
    name: str

    def content(self, row: int) -> bytes:
        """The encoded image of a row; ValueError where there is none."""
        value = self.column[row].as_py()
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if not encoded:
            raise ValueError(f"column {self.name!r} holds no image here")
        return encoded


def opened(file: IO[bytes], name: str) -> Any:
    """A Parquet file; UserError where it is none."""
    need("parquet", f"reading {name}")
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise Damaged(f"{name}: not a whole Parquet file: {str(error).splitlines()[0]}") from None


def image_column(table: Any, name: str) -> str:
    """The column called `image`, else the only one that can hold images; UserError where that is none or several."""
    import pyarrow

    def holds(kind: Any) -> bool:
        if pyarrow.types.is_struct(kind):
            return any(field.name == "bytes" and holds(field.type) for field in kind)
        if pyarrow.types.is_dictionary(kind):
            return holds(kind.value_type)
        kinds = pyarrow.types
        return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)

    able = [field.name for field in table.schema_arrow if holds(field.type)]
    if IMAGE in able:
        return IMAGE
    if len(able) != 1:
        found = f"several may be: {', '.join(able)}" if able else f"it has {', '.join(table.schema_arrow.names)}"
        raise NotFound(f"{name}: no column {IMAGE!r} of bytes, or of bytes and path; {found}")
    return able[0]


def rows(table: Any, name: str) -> tuple[Texts | None, np.ndarray]:
    """The ids, where there is a column of them; and (row group, row in it) of each row."""
    image_column(table, name)
    counts = [table.metadata.row_group(group).num_rows for group in range(table.metadata.num_row_groups)]
    places = np.empty((sum(counts), 2), np.int64)
    places[:, 0] = np.repeat(np.arange(len(counts)), counts)
    places[:, 1] = np.concatenate([np.arange(count) for count in counts] or [np.empty(0, np.int64)])
    return (_ids(table, name) if ID in table.schema_arrow.names else None), places


def _ids(table: Any, name: str) -> Texts:
    found, row = [], 0
    for batch in table.iter_batches(columns=[ID]):
        values = batch.column(0).to_pylist()
        if None in values:
            raise Damaged(f"{name}: row {row + values.index(None)} has no {ID}")
        found.append(Texts.of(map(str, values)))
        row += len(values)
    return Texts.joined(found)


def group(table: Any, number: int, name: str) -> Group:
    """The images of a row group; UserError where it is larger than what is read at once."""
    column, about = image_column(table, name), table.metadata.row_group(number)
    bytes_ = sum(
        about.column(n).total_uncompressed_size
        for n in range(about.num_columns)
        if about.column(n).path_in_schema.partition(".")[0] == column
    )
    if bytes_ > LARGEST:
        raise Unavailable(f"{name}: a row group of {bytes_ / 1e9:.1f} GB; write the file with smaller ones, of 1 GB")
    try:
        return Group(table.read_row_group(number, columns=[column]).column(0), column)
    except OSError as error:  # pyarrow's word for pages that are damaged
        raise ValueError(str(error)) from None
