"""Run every benchmark and write bench/README.md: `make bench`."""

import importlib
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

BENCHMARKS = (
    "prompt_edit",
    "labelled",
    "load_memory",
    "dtype_agreement",
    "streaming",
    "text_side",
    "forward_options",
    "image_side",
)
PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "pillow")


def processor() -> str:
    """The CPU's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    head = [
        "# Measurements",
        "",
        "Written by `make bench`. Ratios are of runs side by side on one machine; seconds depend on it.",
        "",
        f"{date.today()}; {processor()}; Python {platform.python_version()}; {versions}.",
    ]
    tables = []
    for name in BENCHMARKS:
        print(f"bench      {name}", flush=True)
        tables.append(importlib.import_module(name).main())
        print(tables[-1], flush=True)
    (Path(__file__).parent / "README.md").write_text("\n\n".join(["\n".join(head), *tables]) + "\n")


if __name__ == "__main__":
    main()
