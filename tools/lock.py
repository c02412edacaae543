"""What `make lock` writes from pyproject.toml: all that the dependencies bring, pinned.

requirements.txt         what the package needs at run time
requirements-all.txt     that and all extras; behind # stand the extras that bring a line

`pip lock` does the resolving, so pip's configuration of a machine is respected. A line has the hash of its wheel where
one wheel serves every platform. torch and other compiled packages have a wheel per platform (and torch one per kind of
GPU), so they are pinned without. What is brought keeps the version it has in requirements-all.txt, if UPGRADE=1 does
not ask for the newest. Needs the pip of the extra `audit`.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HEADER = """\
# Written by `make lock` from pyproject.toml: edit that. A hash where one wheel serves every platform.
# `make` installs these lines. By hand, with pip 26.2 or newer: pip install --no-require-hashes -r {}
"""


def resolve(wanted: Sequence[str], constraints: Sequence[str] = ()) -> dict[str, str]:
    """{name: line of a requirement file} of all distributions that pip would install for `wanted`."""
    with tempfile.TemporaryDirectory() as folder:
        pins, lock = Path(folder) / "constraints.txt", Path(folder) / "pylock.toml"
        pins.write_text("\n".join(constraints))
        command = [sys.executable, "-m", "pip", "lock", "--quiet", "--constraint", str(pins), "--output", str(lock)]
        if subprocess.run([*command, *wanted]).returncode:
            sys.exit("error: nothing was written. If a version that is kept conflicts: make lock UPGRADE=1")
        packages = tomllib.loads(lock.read_text())["packages"]
    return {package["name"]: line(package) for package in sorted(packages, key=lambda package: package["name"])}


def line(package: Mapping) -> str:
    """name==version of a package in pylock.toml, with its hash if its wheel is for all platforms."""
    version = package["version"].partition("+")[0]  # +cpu is this machine's build of a version
    hashes = [w["hashes"]["sha256"] for w in package.get("wheels", ()) if w["name"].endswith("-none-any.whl")]
    return " ".join([f"{package['name']}=={version}", *(f"--hash=sha256:{sha256}" for sha256 in hashes)])


def extras(project: Mapping) -> dict[str, list[str]]:
    """{extra: requirements}; an extra may include others of this project."""
    written = project["optional-dependencies"]

    def all_of(extra: str) -> list[str]:
        own = {f"{project['name']}[{other}]": other for other in written}
        return [pin for one in written[extra] for pin in (all_of(own[one]) if one in own else [one])]

    return {extra: all_of(extra) for extra in written}


def pins_of(lines: Iterable[str]) -> dict[str, str]:
    """{name: name==version} of the lines of a requirement file."""
    pins = [text.partition(" ")[0] for text in lines if text and not text.startswith("#")]
    return {re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower(): pin for pin in pins}


def main(root: Path = Path(__file__).parent.parent, upgrade: bool = False) -> None:
    """Write both requirement files."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    needed, by_extra = project["dependencies"], extras(project)
    direct = [*needed, *(pin for pins in by_extra.values() for pin in pins)]
    kept = {} if upgrade else pins_of((root / "requirements-all.txt").read_text().splitlines())
    everything = resolve(direct, [pin for name, pin in kept.items() if name not in pins_of(direct)])
    pins = list(pins_of(everything.values()).values())
    run_time = resolve(needed, pins)
    brings = {extra: resolve([*needed, *wanted], pins).keys() - run_time.keys() for extra, wanted in by_extra.items()}
    notes = {name: " ".join(extra for extra, names in brings.items() if name in names) for name in everything}
    files = {
        "requirements.txt": run_time.values(),
        "requirements-all.txt": [f"{text}  # {notes[n]}" if notes[n] else text for n, text in everything.items()],
    }
    for file, lines in files.items():
        (root / file).write_text(HEADER.format(file) + "".join(f"{text}\n" for text in lines))
        print(f"lock       {file}: {len(lines)} distributions")


if __name__ == "__main__":
    main(upgrade="--upgrade" in sys.argv[1:])
