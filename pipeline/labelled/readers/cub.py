"""CUB-200-2011: images.txt, image_class_labels.txt, classes.txt, train_test_split.txt and images/."""

from collections.abc import Iterator
from pathlib import Path

from ...core.errors import Damaged, NotFound
from . import Row, lines, reader

LAYOUT = "CUB-200-2011 has images.txt, image_class_labels.txt, classes.txt, train_test_split.txt and images/"


@reader
def cub(path: Path) -> Iterator[Row]:
    """The official split."""
    files, labels, names, is_train = (
        _table(path / f"{name}.txt") for name in ("images", "image_class_labels", "classes", "train_test_split")
    )
    for number, name in files.items():
        try:
            class_name, split = names[labels[number]], {"1": "train", "0": "test"}[is_train[number]]
        except KeyError as error:
            raise NotFound(f"{path}: image {number} ({name}): nothing says what {error} is; {LAYOUT}") from None
        yield Row(name, class_name, split, path / "images" / name)


def _table(path: Path) -> dict[str, str]:
    """Lines of 'number value'."""
    table = {}
    for words in lines(path, LAYOUT):
        if len(words) != 2:
            raise Damaged(f"{path}: {' '.join(words)!r} is not 'number value'")
        table[words[0]] = words[1].strip()
    return table
