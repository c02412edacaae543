"""Whether decoding and a preprocess recipe still give the pixels that they gave: a fingerprint of what they make.

Another version of a library, or an op that was changed, may give other pixels for the same file and recipe. Three small
images that come with the package (canaries/) are decoded and processed; equal pixels keep every cache,
other ones lose it.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..core.digests import digest_of, read_memo, write_memo
from ..recipes import Preprocess
from .decoding import decode
from .ops import compile_recipe

HERE = Path(__file__).parent
PACKAGES = ("pillow", "numpy", "torch", "torchvision", "pillow-heif")


def changed(recipe: Preprocess, where: str, memo: Path) -> str | None:
    """The fingerprint of a recipe if it is another than when it was first used with the caches beside `memo`.

    Remembered for each state of packages and code. A recipe that was never used before has not changed.
    """
    known, key, surroundings = read_memo(memo), digest_of(recipe.content()), _surroundings()
    entry = known.setdefault(key, {"first": None, "found": {}})
    if surroundings not in entry["found"]:
        found = entry["found"][surroundings] = fingerprint(recipe, where)
        entry["first"] = entry["first"] or found
        write_memo(memo, known)
    found = entry["found"][surroundings]
    return None if found == entry["first"] else found


def fingerprint(recipe: Preprocess, where: str) -> str:
    """Digest of the pixels that the recipe makes of the canaries."""
    apply, found = compile_recipe(recipe, where), hashlib.blake2b(digest_size=10)
    for path in sorted((HERE / "canaries").iterdir()):
        found.update(apply(decode(path, recipe.draft_size)).tobytes())
    return found.hexdigest()


def _surroundings() -> str:
    """Digest of the versions of packages and of the code of this room."""
    code = hashlib.blake2b(digest_size=10)
    for path in sorted(HERE.glob("*.py")):
        code.update(path.read_bytes())
    return digest_of({"code": code.hexdigest(), "versions": {package: _version(package) for package in PACKAGES}})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
