"""FungiCLEF 2022: DF20-train_metadata.csv, DF20-val_metadata.csv and the folders of images they name."""

import re
from collections.abc import Iterator
from pathlib import Path

from ...core.errors import NotFound
from . import SPLITS, Row, reader
from .csv import table

METADATA = re.compile(r".*[-_](train|val|test)_metadata.*\.csv")
IMAGES = ("DF20_300", "DF20", "DF21_300", "DF21")
LAYOUT = "FungiCLEF 2022 has DF20-train_metadata.csv, DF20-val_metadata.csv and DF20-300px/DF20_300/"


@reader
def fungiclef(path: Path, images: str | None = None) -> Iterator[Row]:
    """Species are the first two words of scientificName, without author; `images` is the folder of the images.

    Metadata without scientificName (the competition's test set) has no labels and is left out.
    """
    found = sorted((match[1], file) for file in path.glob("*.csv") if (match := METADATA.fullmatch(file.name)))
    if not found:
        raise NotFound(f"{path}: no *_metadata.csv; {LAYOUT}")
    folder = path / images if images else _image_folder(path)
    on_disk = {file.name.lower(): file for file in folder.iterdir()} if folder.is_dir() else {}
    for split, file in found:
        if not _labelled(file):
            continue
        for line in table(file, "image_path", "scientificName"):
            name = Path(line["image_path"]).name  # the reduced images differ in the case of .jpg
            species = " ".join(line["scientificName"].split()[:2])
            yield Row(name, species, SPLITS[split], on_disk.get(name.lower(), folder / name))


def _labelled(file: Path) -> bool:
    with open(file, encoding="utf-8-sig") as text:
        return "scientificName" in text.readline()


def _image_folder(path: Path) -> Path:
    for name in IMAGES:
        for folder in (path / name, *path.glob(f"*/{name}")):
            if folder.is_dir():
                return folder
    raise NotFound(f"{path}: no folder of images ({', '.join(IMAGES)}); name it: 'reader: {{fungiclef: folder}}'")
