"""CIFAR-10 and CIFAR-100 as published for Python: pickles, read without letting them run anything."""

import io
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ...core.errors import Damaged, NotFound
from . import Row, reader

LAYOUT = "cifar-100-python has meta, train, test; cifar-10-batches-py has batches.meta, data_batch_1..5, test_batch"
# everything the published files refer to; Python 2 wrote them, so under the names of its numpy
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """Builds plain values and numpy arrays; a pickle that asks for anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return ALLOWED[module, name]


def load(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR file, with text keys; UserError for a file that is none."""
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        return {key.decode(): value for key, value in content.items()}
    except FileNotFoundError:
        raise NotFound(f"{path.parent}: no {path.name}; {LAYOUT}") from None
    except Exception as error:  # bytes that are no pickle fail in many ways
        raise Damaged(f"{path}: not a published CIFAR file: {error}") from None


@reader
def cifar(path: Path, level: Literal["fine", "coarse"] = "fine") -> Iterator[Row]:
    """`level` matters for CIFAR-100: its 100 classes or its 20 superclasses."""
    if (path / "batches.meta").is_file():
        meta, labels_key = "batches.meta", "labels"
        names = load(path / meta).get("label_names")
        files = [*((f"data_batch_{n}", "train") for n in range(1, 6)), ("test_batch", "test")]
    else:
        meta, labels_key = "meta", f"{level}_labels"
        names = load(path / meta).get(f"{level}_label_names")
        files = [("train", "train"), ("test", "test")]
    if not names:
        raise Damaged(f"{path / meta}: no names of classes in it")
    for file, split in files:
        yield from _rows(path / file, split, [name.decode() for name in names], labels_key)


def _rows(file: Path, split: str, names: list[str], labels_key: str) -> Iterator[Row]:
    content = load(file)
    data, labels = content.get("data"), content.get(labels_key)
    fits = isinstance(data, np.ndarray) and data.dtype == np.uint8 and isinstance(labels, list)
    if not fits or data.shape != (len(labels), 3072) or not all(label in range(len(names)) for label in labels):
        raise Damaged(f"{file}: 'data' is not (N, 3072) bytes with N {labels_key} below {len(names)}")
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    for number, label in enumerate(labels):
        yield Row(f"{file.name}/{number}", names[label], split, file, partial(_image, images, number))


def _image(images: np.ndarray, number: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(images[number]))
