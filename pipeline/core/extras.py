"""Optional packages: what is needed beyond the run-time requirements, told before anything is computed."""

import functools
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from .errors import Unavailable

PROJECT = "zero-shot-pipeline"
WRITTEN = Path(__file__).parents[2] / "pyproject.toml"  # in a checkout; an installed package has it as metadata


@functools.cache
def pins(extra: str) -> tuple[str, ...]:
    """name==version of the packages of an extra, as pyproject.toml has them."""
    if WRITTEN.is_file():
        found = tomllib.loads(WRITTEN.read_text())["project"]["optional-dependencies"][extra]
    else:
        found = [need.partition(";")[0] for need in requires(PROJECT) or () if need.endswith(f'extra == "{extra}"')]
    return tuple(pin for pin in found if not pin.startswith(PROJECT))  # what includes another extra


def need(extra: str, what: str) -> None:
    """UserError with the pip command when a package of an extra is missing; `what` needs it."""
    missing = [pin for pin in pins(extra) if not _installed(pin.partition("==")[0])]
    if missing:
        names = ", ".join(pin.partition("==")[0] for pin in missing)
        raise Unavailable(f"{what} needs {names}. Install: {sys.executable} -m pip install {' '.join(missing)}")


def _installed(name: str) -> bool:
    try:
        return bool(version(name.partition("[")[0]))
    except PackageNotFoundError:
        return False
