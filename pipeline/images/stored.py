"""Images in an object store: what a URL holds, listed once; each is read when it is needed, and never kept here."""

from dataclasses import dataclass
from functools import cached_property

from natsort import natsorted

from ..core.digests import FileDigests, digest_of
from ..core.errors import NotFound, Unavailable
from ..core.store import Url
from .damaged import Unreadable, check_size
from .decoding import Decoded, Policy, read

MAGIC = "*?["
STATE = ("ETag", "e_tag", "etag", "md5Hash", "content_md5")  # what stores call that which changes with an object
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")  # of stores that have nothing else


@dataclass(frozen=True)
class StoredImages:
    """The images below a URL in natural order; as `listing.ImageFiles`, and `states` tell what each object is."""

    folder: Url
    ids: tuple[str, ...]
    states: tuple[str, ...]
    sizes: tuple[int, ...]
    left_out: tuple[str, ...] = ()
    deeper: int = 0

    def paths(self) -> list[str]:
        return [str(self.folder / name) for name in self.ids]

    def open(self, row: int, draft_size: int | None = None, policy: Policy = Policy()) -> Decoded:  # noqa: B008
        url = self.folder / self.ids[row]
        check_size(str(url), self.sizes[row], policy.max_pixels)
        try:
            content = url.read_bytes()
        except (OSError, Unavailable) as error:
            raise Unreadable(str(url), str(error)) from None
        return read(content, draft_size, policy, str(url))

    def contents(self, digests: FileDigests) -> list[str]:
        return list(self.states)

    @cached_property
    def _stamp(self) -> str:
        return digest_of({"ids": self.ids, "states": self.states})

    def stamp(self) -> str:
        return self._stamp


def list_stored(url: Url, where: str, is_image) -> StoredImages:
    """The images of a URL: what lies directly below it, or what a pattern such as s3://bucket/**/*.jpg finds."""
    parts = url.text.split("/")
    magic = next((n for n, part in enumerate(parts) if set(part) & set(MAGIC)), None)
    folder = url if magic is None else Url("/".join(parts[:magic]))
    found = folder.listed() if magic is None else folder.matching("/".join(parts[magic:]))
    deeper = 0
    if magic is None:
        deeper = sum("/" in name and is_image(name) for name in found)
        found = {name: about for name, about in found.items() if "/" not in name}
    ids = natsorted(name for name in found if is_image(name))
    if not ids:
        hint = f". There are some deeper; give a pattern: {folder}/**/*" if deeper else ""
        raise NotFound(f"{where}: no images in {url}{hint}")
    states = tuple(_state(found[name]) for name in ids)
    sizes = tuple(found[name]["size"] for name in ids)
    return StoredImages(folder, tuple(ids), states, sizes, tuple(natsorted(found.keys() - set(ids))), deeper)


def _state(about: dict) -> str:
    """What tells one content of an object from another; the space says that it is no digest of the bytes alone."""
    known = next((str(about[key]) for key in (*STATE, *TIMES) if about.get(key)), "")
    return f"{known.strip(chr(34))} {about['size']}"
