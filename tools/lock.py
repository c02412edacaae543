"""What `make lock` writes: all that the requirement files bring, pinned, with hashes of what is one wheel everywhere.

requirements.lock        name==version of every distribution, direct or not: a constraints file for pip
requirements*.hashes     sha256 of the universal wheels of requirements*.txt; pip installs them first, by hash

torch and other compiled packages have a wheel per platform (and torch one per kind of GPU), so they are pinned without
a hash. Needs the standard library and pip only, which does the resolving.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

RUN_TIME = "requirements.txt"
HEADER = "# Written by `make lock`.\n"


def resolve(root: Path, *arguments: str) -> dict[str, tuple[str, str, str]]:
    """{name: (version, sha256, file name)} of what pip would install; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), *arguments], cwd=root, check=True)
        found = json.loads(report.read_text())["install"]
    return {
        one["metadata"]["name"].lower().replace("_", "-"): (
            one["metadata"]["version"].partition("+")[0],  # +cpu is this machine's build of a version
            one["download_info"]["archive_info"]["hashes"]["sha256"],
            one["download_info"]["url"].rpartition("/")[2],
        )
        for one in found
        if one["metadata"]["name"] != "pip"  # it installs, and comes with the interpreter
    }


def hashes(found: dict[str, tuple[str, str, str]]) -> str:
    """The lines of those that are one wheel for all platforms."""
    return "".join(
        f"{name}=={version} --hash=sha256:{sha256}\n"
        for name, (version, sha256, file) in sorted(found.items())
        if file.endswith("-none-any.whl")
    )


def main(root: Path = Path(__file__).parent.parent) -> None:
    """Write requirements.lock and a hash file for each requirement file."""
    files = [RUN_TIME, *sorted(path.name for path in root.glob("requirements-*.txt"))]
    lock = root / "requirements.lock"
    everything = resolve(root, *(word for file in files for word in ("--requirement", file)))
    lock.write_text(HEADER + "".join(f"{name}=={version}\n" for name, (version, *_) in sorted(everything.items())))
    common: dict = {}
    for file in files:
        found = resolve(root, "--constraint", lock.name, "--requirement", RUN_TIME, "--requirement", file)
        own = {name: one for name, one in found.items() if name not in common}
        (root / file).with_suffix(".hashes").write_text(HEADER + hashes(own))
        common = common or found
    print(f"lock       {len(everything)} distributions, {len(files)} requirement files: {lock.name}, *.hashes")


if __name__ == "__main__":
    main()
