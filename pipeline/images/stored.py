"""Images in an object store: what a URL holds, listed once; each is read when it is needed, and never kept here."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..core.digests import FileDigests, digest_of
from ..core.errors import NotFound, Unavailable
from ..core.store import Url
from ..core.texts import Texts, natural, natural_order
from . import packed
from .damaged import Unreadable, check_size
from .decoding import Decoded, Policy, read
from .names import is_image, is_packed
from .packed import PackedImages, state_of

MAGIC = "*?["


@dataclass(frozen=True, eq=False)
class StoredImages:
    """The images below a URL in natural order; as `listing.ImageFiles`, and `states` tell what each object is."""

    folder: Url
    ids: Texts
    states: Texts
    sizes: np.ndarray  # int64
    left_out: tuple[str, ...] = ()
    deeper: int = 0

    def paths(self) -> list[str]:
        return [str(self.folder / name) for name in self.ids]

    def open(self, row: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        url = self.folder / self.ids[row]
        check_size(str(url), int(self.sizes[row]), policy.max_pixels)
        try:
            content = url.read_bytes()
        except (OSError, Unavailable) as error:
            raise Unreadable(str(url), str(error)) from None
        return read(content, draft_size, policy, str(url))

    def file(self, row: int) -> None:
        return None

    def contents(self, digests: FileDigests) -> Texts:
        return self.states

    @cached_property
    def _stamp(self) -> str:
        return digest_of({"ids": self.ids, "states": self.states})

    def stamp(self) -> str:
        return self._stamp


def list_stored(url: Url, where: str, indexes: Path) -> StoredImages | PackedImages:
    """The images of a URL: what lies directly below it, or what a pattern such as s3://bucket/**/*.jpg finds.

    Where there are none, those in tars or Parquet; what is learnt of these is kept in `indexes`.
    """
    if is_packed(url.name) and not set(url.text) & set(MAGIC) and url.exists():
        return packed.listed(url.parent, [url.name], (), indexes, where)
    from fsspec.utils import glob_translate

    parts = url.text.split("/")
    magic = next((n for n, part in enumerate(parts) if set(part) & set(MAGIC)), None)
    folder = url if magic is None else Url("/".join(parts[:magic]))
    found = Found(None if magic is None else re.compile(glob_translate("/".join(parts[magic:]))))
    for page in folder.pages():
        found.add(page)
    if packs := [] if found.names else natural(name for name in found.others if is_packed(name)):
        return packed.listed(folder, packs, natural(set(found.others) - set(packs)), indexes, where)
    if not found.names:
        hint = f". There are some deeper; give a pattern: {folder}/**/*" if found.deeper else ""
        raise NotFound(f"{where}: no images in {url}{hint}")
    return found.images(folder)


@dataclass
class Found:
    """What is gathered of a listing that comes in pages: the images that `pattern` finds, or those directly there."""

    pattern: re.Pattern | None
    names: list[Texts] = field(default_factory=list)
    states: list[Texts] = field(default_factory=list)
    sizes: list[np.ndarray] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    deeper: int = 0

    def add(self, page: dict[str, dict]) -> None:
        there = {name: about for name, about in page.items() if self._meant(name)}
        if self.pattern is None:
            self.deeper += sum("/" in name and is_image(name) for name in page)
        images = {name: about for name, about in there.items() if is_image(name)}
        if images:
            self.names.append(Texts.of(images))
            self.states.append(Texts.of(map(state_of, images.values())))
            self.sizes.append(np.fromiter((about["size"] for about in images.values()), np.int64, len(images)))
        self.others += there.keys() - images.keys()

    def _meant(self, name: str) -> bool:
        return "/" not in name if self.pattern is None else bool(self.pattern.match(name))

    def images(self, folder: Url) -> StoredImages:
        names, states, sizes = Texts.joined(self.names), Texts.joined(self.states), np.concatenate(self.sizes)
        order = natural_order(names)
        if order is not None:
            names, states, sizes = names.take(order), states.take(order), sizes[np.array(order)]
        return StoredImages(folder, names, states, sizes, tuple(natural(self.others)), self.deeper)
