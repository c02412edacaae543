"""Run benchmarks and write bench/README.md: `make bench`, or `python bench/run.py prompt_edit streaming` for some."""

import importlib
import platform
import re
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).parent / "README.md"
sys.path.insert(0, str(Path(__file__).parent.parent))  # for all of them, whichever comes first
# up to half an hour each; run them by name
OUTSIDE_THE_TIME_LIMIT = (
    "labelled",
    "methods",
    "guards",
    "weights",
    "left",
    "packs",
    "training",
    "finetune",
    "workbench",
    "scale",
    "millions",
)
BENCHMARKS = (
    "prompt_edit",
    "load_memory",
    "dtype_agreement",
    "streaming",
    "text_side",
    "forward_options",
    "decoding",
    "feeding",
    "image_side",
    *OUTSIDE_THE_TIME_LIMIT,
)
PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "pillow")
HEAD = """# Measurements

Written by `make bench` (37 minutes on two cores); `python bench/run.py labelled
methods guards weights left packs training finetune` takes longer and runs by name. Ratios are of runs side by side on
one machine; seconds depend on it."""


def machine() -> str:
    """The processor's name and number of cores, where the system tells it, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = f"{len(names)} x {names[0]}" if names else platform.processor()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"*{date.today()}; {processor}; Python {platform.python_version()}; {versions}.*"


def sections() -> dict[str, str]:
    """What is in bench/README.md, by benchmark: a section starts with a heading that names its script."""
    text = README.read_text() if README.exists() else ""
    found = re.split(r"^(?=### )", text, flags=re.MULTILINE)[1:]
    return {re.search(r"\(bench/(\w+)\.py\)", section)[1]: section.strip() for section in found}


def main(names: list[str]) -> None:
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark {sorted(unknown)}; known: {', '.join(BENCHMARKS)}")
    names = names or [name for name in BENCHMARKS if name not in OUTSIDE_THE_TIME_LIMIT]
    if len(names) == 1:
        measure(names[0])
        return
    # each in a process of its own: what one changes is not the next one's, and the peak of memory that processes are
    # told of is that of whoever started them, if that is higher
    failed = [name for name in names if subprocess.run([sys.executable, __file__, name]).returncode]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def measure(name: str) -> None:
    """Run one, and write its section at once: an interrupted run keeps what it measured."""
    print(f"bench      {name}", flush=True)
    measured = importlib.import_module(name).main()
    print(measured, flush=True)
    whole = sections() | {name: f"{measured.strip()}\n\n{machine()}"}
    README.write_text("\n\n".join([HEAD, *(whole[b] for b in BENCHMARKS if b in whole)]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
