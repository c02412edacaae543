"""Images in an object store: what a URL holds, listed once; each is read when it is needed, and never kept here."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..core.digests import FileDigests, digest_of
from ..core.errors import NotFound, Unavailable
from ..core.store import Url
from ..core.texts import Texts, natural
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
    parts = url.text.split("/")
    magic = next((n for n, part in enumerate(parts) if set(part) & set(MAGIC)), None)
    folder = url if magic is None else Url("/".join(parts[:magic]))
    found = folder.listed() if magic is None else folder.matching("/".join(parts[magic:]))
    deeper = 0
    if magic is None:
        deeper = sum("/" in name and is_image(name) for name in found)
        found = {name: about for name, about in found.items() if "/" not in name}
    ids = natural(name for name in found if is_image(name))
    if packs := [] if ids else natural(name for name in found if is_packed(name)):
        return packed.listed(folder, packs, natural(found.keys() - set(packs)), indexes, where)
    if not ids:
        hint = f". There are some deeper; give a pattern: {folder}/**/*" if deeper else ""
        raise NotFound(f"{where}: no images in {url}{hint}")
    states = Texts.of(state_of(found[name]) for name in ids)
    sizes = np.fromiter((found[name]["size"] for name in ids), np.int64, len(ids))
    others = natural(name for name in found if not is_image(name))
    return StoredImages(folder, Texts.of(ids), states, sizes, tuple(others), deeper)
