"""A table of images in Parquet, in parts: a folder with a file for each shard of rows, each there whole or not at all.

The parts say in their metadata what they were made from. So a run that was stopped is gone on with, and no table mixes
two. Names sort as their rows do, and every reader of Parquet takes the folder for one table.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .artefacts import gaps_between
from .digests import digest_of
from .errors import Damaged, Exists
from .files import atomic_file
from .store import Place, Url

SUFFIX = ".parquet"
PART = re.compile(r"part-(\d+)-(\d+)\.parquet")
KEY = b"zero_shot"  # of the schema's metadata


@dataclass(frozen=True)
class Parts:
    """The parts of a table below `folder`; `made_from` is a JSON-able dict of all that decides its rows."""

    folder: Place
    made_from: dict

    @property
    def digest(self) -> str:
        return digest_of(self.made_from)

    def missing(self, total: int, size: int) -> list[tuple[int, int]]:
        """The row ranges of 0..total that no part has yet; UserError where the folder holds something else."""
        return gaps_between(((start, stop) for start, stop, _ in self._found()), size, 0, total)

    def write(self, start: int, stop: int, columns: Mapping[str, Any], facts: dict | None = None) -> None:
        """Write rows start..stop: Arrow arrays or lists by column. `facts` (JSON-able) are kept with the part."""
        import pyarrow
        from pyarrow import parquet

        try:
            table = pyarrow.table(dict(columns))
        except (UnicodeEncodeError, pyarrow.ArrowInvalid) as error:
            raise Damaged(f"{self.folder}: Parquet holds UTF-8 names alone; give OUT=name.csv ({error})") from None
        known = {"digest": self.digest, "made_from": self.made_from, "facts": facts or {}}
        table = table.replace_schema_metadata({KEY: json.dumps(known)})
        with atomic_file(self.folder / f"part-{start:010d}-{stop:010d}{SUFFIX}") as temporary:
            parquet.write_table(table, temporary, compression="zstd")

    def read(self) -> Iterator[tuple[Any, dict]]:
        """Each part in the order of its rows, as a pyarrow table, and its facts."""
        from pyarrow import parquet

        for _, _, file in self._found():
            yield parquet.read_table(_opened(file), partitioning=None), self._known(file)["facts"]

    def _found(self) -> list[tuple[int, int, Place]]:
        stored = isinstance(self.folder, Url)
        if not stored and not self.folder.exists():
            return []
        if not stored and not self.folder.is_dir():
            raise Exists(f"{self.folder} is a file, and is not overwritten; remove it or give another OUT=")
        files = sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))
        found = [(PART.fullmatch(path.name), path) for path in files]
        if foreign := next((path for match, path in found if not match), None):
            raise Exists(f"{foreign} is no part of this table; remove it or give another OUT=")
        for _, path in found:
            if self._known(path).get("digest") != self.digest:
                raise Exists(
                    f"{path} is of another run and is not overwritten; remove that folder or give another OUT="
                )
        return [(int(match[1]), int(match[2]), path) for match, path in found if match]

    def _known(self, file: Place) -> dict:
        import pyarrow
        from pyarrow import parquet

        try:
            return json.loads((parquet.read_schema(_opened(file)).metadata or {}).get(KEY, b"{}"))
        except (pyarrow.ArrowInvalid, ValueError):
            raise Damaged(f"{file}: not a whole Parquet file; remove it") from None


def _opened(file: Place) -> Any:
    """A part as pyarrow reads it."""
    return io.BytesIO(file.read_bytes()) if isinstance(file, Url) else file
