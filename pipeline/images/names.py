"""What files are by their names: images, files that hold many images, and patterns that count on."""

import itertools
import os
import re

# names of the kinds that decoding reads
EXTENSION = re.compile(
    r"\.(jpe?g|jpe|jfif|mpo|jp2|j2[kc]|jp[cfx]|a?png|bmp|dib|gif|webp|tiff?|p[bgpn]m|pfm|avifs?|hei[cf]|ico)",
    re.ASCII | re.IGNORECASE,
)
TAR, PARQUET = ".tar", ".parquet"
COUNTING = re.compile(r"\{(\d+)\.\.(\d+)\}", re.ASCII)


def is_image(name: str) -> bool:
    """By its extension; hidden files (.DS_Store, ._1.jpg) are none."""
    base = os.path.basename(name)
    return bool(EXTENSION.fullmatch(os.path.splitext(base)[1])) and not base.startswith(".")


def is_packed(name: str) -> bool:
    """Whether a file holds images, by its ending; hidden files and what others write beside tables are none."""
    return name.endswith((TAR, PARQUET)) and not os.path.basename(name).startswith((".", "_"))


def counted(pattern: str) -> list[str]:
    """'{08..10}.tar' -> ['08.tar', '09.tar', '10.tar']; a pattern without such braces is its only name."""
    texts = COUNTING.split(pattern)
    ranges = [
        [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        for first, last in zip(texts[1::3], texts[2::3], strict=True)
    ]
    between = texts[::3]
    return [
        "".join(itertools.chain.from_iterable(zip(between, [*numbers, ""], strict=True)))
        for numbers in itertools.product(*ranges)
    ]
