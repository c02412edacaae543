"""Describable Textures: labels/train1.txt, val1.txt, test1.txt ... of ten splits, and images/."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from . import Row, lines, reader

LAYOUT = "DTD has labels/{train,val,test}{1..10}.txt and images/<class>/"


@reader
def dtd(path: Path, fold: Annotated[int, Field(ge=1, le=10)] = 1) -> Iterator[Row]:
    """One of the ten official splits into train, val and test."""
    for split in ("train", "val", "test"):
        for words in lines(path / "labels" / f"{split}{fold}.txt", LAYOUT):
            name = " ".join(words)
            yield Row(name, name.partition("/")[0], split, path / "images" / name)
