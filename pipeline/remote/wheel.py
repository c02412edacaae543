"""This package as a wheel, from its files as they are here: in a checkout or installed, without a build and offline."""

import base64
import hashlib
import io
import tomllib
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

from ..core.extras import PROJECT, WRITTEN

PACKAGE = Path(__file__).parents[1]
LEFT_OUT = {"__pycache__", "builtin"}  # a pack has the recipes that it needs


def name() -> str:
    """Of the file."""
    return f"{PROJECT.replace('-', '_')}-{_version()}-py3-none-any.whl"


def requirements() -> list[str]:
    """What the package needs to run, name==version each."""
    if WRITTEN.is_file():
        return tomllib.loads(WRITTEN.read_text())["project"]["dependencies"]
    return [need for need in requires(PROJECT) or () if ";" not in need]


def content() -> bytes:
    """The wheel, the same bytes for the same files."""
    folder = name().removesuffix("-py3-none-any.whl") + ".dist-info"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requirements())
    about = f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {_version()}\nRequires-Python: >=3.11\n{needs}"
    files = {f"pipeline/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes() for path in _own()} | {
        f"{folder}/METADATA": about.encode(),
        f"{folder}/WHEEL": b"Wheel-Version: 1.0\nGenerator: zero-shot\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{folder}/entry_points.txt": b"[console_scripts]\nzero-shot = pipeline.__main__:run\n",
    }
    record = [f"{file},sha256={_hash(text)},{len(text)}\n" for file, text in files.items()]
    files[f"{folder}/RECORD"] = "".join([*record, f"{folder}/RECORD,,\n"]).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for file, text in files.items():
            archive.writestr(zipfile.ZipInfo(file), text, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _own() -> list[Path]:
    found = sorted(path for path in PACKAGE.rglob("*") if path.is_file())
    return [path for path in found if not LEFT_OUT & set(path.relative_to(PACKAGE).parts)]


def _version() -> str:
    if WRITTEN.is_file():
        return tomllib.loads(WRITTEN.read_text())["project"]["version"]
    return version(PROJECT)


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
