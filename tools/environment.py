"""Check the interpreter at hand against pyproject.toml: what is missing is an error, what differs a remark.

Needs the standard library only (`make submit PYTHON=python3` runs it first).
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def compare(pins: list[str]) -> tuple[list[str], list[str]]:
    """(pins that are not installed, 'package have, pinned' for those installed in another version)."""
    missing, other = [], []
    for pin in pins:
        name, _, wanted = pin.partition("==")
        try:
            have = version(name)
        except PackageNotFoundError:
            missing.append(pin)
            continue
        if have.partition("+")[0] != wanted:
            other.append(f"{name} {have} (pinned {wanted})")
    return missing, other


def main() -> int:
    """Exit code 1 when something is missing."""
    written = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    missing, other = compare(written["project"]["dependencies"])
    if other:
        print(f"note: other versions than pinned: {', '.join(other)}", file=sys.stderr)
    if missing:
        print(
            f"error: missing: {', '.join(missing)}\nfix:   {sys.executable} -m pip install {' '.join(missing)}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
