"""The one file that comes back: tensors in the safetensors format, and a manifest with the digest of each.

It comes from elsewhere, so nothing in it may run, and nothing in it is believed: safetensors holds numbers and text
only, no archive, no path and no pickle; its header is bounded and must account for every byte of the file.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open

from ..core.errors import Damaged, Mismatch, NotFound, UserError
from ..core.files import atomic_file
from ..recipes.schema import Finite, Recipe, Text

KINDS = {"float16": "F16", "float32": "F32", "uint8": "U8"}  # numpy's names, and those of the format
KEY, LIST = "zero-shot features", "list"
Dtype = Literal["fp32", "fp16", "bf16"]
Row = Field(ge=0)


class Shard(Recipe):
    """Features of the images start..stop, in the tensor `name`."""

    start: int = Row
    stop: int = Row
    name: Text


class Problem(Recipe):
    """Something that was wrong with an image, as chain/damage.py records it."""

    row: int = Row
    done: Text
    why: str


class ImageFeatures(Recipe):
    """Those of one member."""

    member: Text
    dtype: Dtype
    facts: dict[str, Any]
    shards: list[Shard]
    problems: list[Problem]


class TextFeatures(Recipe):
    """Those of a model's prompts, float32 (P, D) in the tensor `name`."""

    model: Text
    dtype: Dtype
    facts: dict[str, Any]
    prompts: list[str]
    logit_scale: Finite
    name: Text


class Manifest(Recipe):
    """What is in the file. The tensor `list` holds the ids of all images and the digests of their contents, as JSON."""

    format: Literal[1] = 1
    competition: Text
    data: str | None
    images: list[ImageFeatures]
    texts: list[TextFeatures]
    digests: dict[str, str] = {}


def write(path: Path, manifest: Manifest, tensors: Iterable[tuple[str, Callable[[], np.ndarray]]]) -> None:
    """Write a file; each tensor is made twice, first for its shape and digest, so that memory holds one."""
    tensors, header, digests, end = list(tensors), {}, {}, 0
    for name, make in tensors:
        array = make()
        header[name] = {
            "dtype": KINDS[str(array.dtype)],
            "shape": array.shape,
            "data_offsets": (end, end + array.nbytes),
        }
        digests[name], end = _digest(array), end + array.nbytes
    text = manifest.model_copy(update={"digests": digests}).model_dump_json()
    header["__metadata__"] = {KEY: text, "digest": _digest_of(text.encode())}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for _, make in tensors:
            file.write(make().tobytes())


class FeaturesFile:
    """A file of features that was found whole: its manifest is well formed, and every tensor has its digest."""

    def __init__(self, path: Path, manifest: Manifest):
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """UserError for what is no such file, or damaged."""
        if not path.is_file():
            raise NotFound(f"FILE={path}: no such file")
        if path.open("rb").read(2) == b"PK":
            raise UserError(f"{path} is an archive, perhaps the pack itself; give the .features file that its run left")
        try:
            with safe_open(path, framework="np") as file:
                found, names = file.metadata() or {}, set(file.keys())
        except (SafetensorError, ValueError, OverflowError) as error:
            raise Damaged(f"{path}: damaged, or no file of features ({error}). Copy it again") from None
        text = found.get(KEY, "")
        if found.get("digest") != _digest_of(text.encode(errors="surrogatepass")):
            raise Damaged(f"{path}: damaged, or no file of features: its manifest is not as it was written")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise Damaged(f"{path}: its manifest is not JSON") from None
        if isinstance(content, dict) and content.get("format") != 1:
            raise Mismatch(f"{path}: made by another version of this program")
        self = cls(path, Manifest.parse(content, str(path)))
        if names != set(self.manifest.digests):
            raise Damaged(f"{path}: damaged: its tensors are not those of its manifest")
        for name in names:
            self.array(name)
        return self

    def array(self, name: str) -> np.ndarray:
        """A tensor by its name, compared with its digest."""
        try:
            with safe_open(self.path, framework="np") as file:
                array = file.get_tensor(name)
            whole = _digest(array) == self.manifest.digests.get(name)
        except (SafetensorError, ValueError, TypeError, OverflowError, AttributeError):
            whole = False
        if not whole:
            raise Damaged(f"{self.path}: damaged: {name!r} is not as it was written. Copy the file again")
        return array

    def listed(self) -> dict:
        """{'ids': [...], 'contents': [...]} of all images that it was made for."""
        try:
            found: Any = json.loads(self.array(LIST).tobytes())
        except (ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise Damaged(f"{self.path}: its list of images is not JSON") from None
        lists = list(found.values()) if isinstance(found, dict) and set(found) == {"ids", "contents"} else []
        texts = all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists)
        if not (lists and texts and len(lists[0]) == len(lists[1])):
            raise Damaged(f"{self.path}: it has no list of images")
        return found


def as_bytes(content: Any) -> np.ndarray:
    """JSON as a tensor."""
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


def _digest(array: np.ndarray) -> str:
    """Of the numbers, their type and their shape."""
    about = f"{array.dtype}{list(array.shape)}".encode()
    return _digest_of(about + array.tobytes())


def _digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def unit(array: np.ndarray) -> bool:
    """Whether all features are finite and of length 1, within the noise of half precision."""
    lengths = np.linalg.norm(array.astype(np.float32), axis=-1)
    return bool(np.isfinite(array).all()) and bool((np.abs(lengths - 1) < 0.01).all()) and math.prod(array.shape) > 0
