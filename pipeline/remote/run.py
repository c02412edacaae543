"""Encode what this pack asks for, on this machine, and leave one file of features: python run.py --help

All GPUs are used. Interrupted, the same command goes on. Only the standard library: it runs before anything is set up.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
KAGGLE = Path("/kaggle/input")
KEPT = ("torch", "torchvision")  # this machine's own fit its GPUs
GPUS = (
    "import torch; print(*(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())))"
)


def main() -> int:
    """The exit status: 0 when all that was asked for is in the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of the images (default: those of the pack, else Kaggle's)")
    parser.add_argument("--out", type=Path, help="the file to leave (default: <competition>.features beside this)")
    parser.add_argument("--work", type=Path, help="folder to work in, on a disk with room for weights and pixels")
    parser.add_argument("--hours", type=float, help="stop in time, and leave what there is")
    args = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036  (another machine's)
        sys.exit("error: Python 3.11 or newer is needed")
    pack, _ = read("pack.json"), read("images.json")
    place = HERE if os.access(HERE, os.W_OK) else Path.cwd()
    work, out = args.work or place / "work", args.out or place / f"{pack['competition']}.features"
    bring(pack["requirements"])
    set_up(work.resolve())
    folder = args.images or (images() if pack["images"] else HERE)  # of prompts alone there are none
    there = There(work.resolve(), folder.resolve(), args.hours)
    try:
        if there.run("check"):
            return 1
        failed = encode(there, pack)
    except KeyboardInterrupt:
        print("\ninterrupted: what is finished is kept; run the same command again to go on", flush=True)
        failed = True
    return there.run("collect", "--out", str(out.resolve())) or int(failed)


class There:
    """Processes of the packed program, in the folder `work`."""

    def __init__(self, work: Path, images: Path, hours: float | None):
        self.work, self.images = work, images
        self.deadline = time.monotonic() + hours * 3600 if hours else None

    def run(self, step: str, *more: str, processes: int = 1) -> int:
        """The largest exit status of so many processes; stopped in time, or with this one."""
        command = [
            sys.executable,
            "-m",
            "pipeline.remote.there",
            step,
            "--pack",
            str(HERE),
            "--images",
            str(self.images),
        ]
        started = [
            subprocess.Popen([*command, *more], cwd=self.work / "project", env=self._environment(number, processes))
            for number in range(processes)
        ]
        try:
            return max(self._wait(process) for process in started)
        finally:
            for process in started:
                process.terminate()
                process.wait()

    def _wait(self, process: subprocess.Popen) -> int:
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        try:
            return abs(process.wait(left))
        except subprocess.TimeoutExpired:
            print("the time is over: what is finished is collected", flush=True)
            self.deadline = None  # what follows is quick
            return 1

    def _environment(self, number: int, processes: int) -> dict[str, str]:
        own = {"PYTHONPATH": str(self.work / "code"), "PYTHONUNBUFFERED": "1"}
        if processes > 1:  # each has a GPU of its own
            own |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(processes)}
        return {**os.environ, **own}


def encode(there: There, pack: dict) -> bool:
    """Encode everything; whether something failed. A model larger than a GPU is spread over all of them."""
    told = subprocess.run([sys.executable, "-c", GPUS], capture_output=True, text=True)
    memory = [int(size) / 1e9 for size in told.stdout.split()]
    print(f"{len(memory)} GPUs: {', '.join(f'{size:.0f} GB' for size in memory)}" if memory else "no GPU: on the CPU")
    large = [model for model, size in pack["gpu_gb"].items() if memory and (size or 0) > min(memory)]
    small = [model for model in pack["gpu_gb"] if model not in large]
    failed = False
    for models, processes in ((small, max(1, len(memory))), (large, 1)):
        if models:
            failed |= bool(there.run("encode", "--models", *models, processes=processes))
    return failed


def read(name: str) -> dict:
    """A JSON file of the pack."""
    try:
        return json.loads((HERE / name).read_text())
    except (OSError, ValueError):
        sys.exit(f"error: {name} is not there or damaged: unzip the pack again")


def set_up(work: Path) -> None:
    """The program and a project folder; what is large is linked, not copied."""
    (work / "project" / "cache").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "code", ignore_errors=True)
    try:
        zipfile.ZipFile(next(HERE.glob("*.whl"))).extractall(work / "code")
    except (StopIteration, zipfile.BadZipFile, zlib.error):
        sys.exit("error: the wheel is not there or damaged: unzip the pack again")
    for path in (HERE / "project").iterdir():
        link = work / "project" / path.name
        if path.name != "cache":
            link.unlink(missing_ok=True)  # it may be of another pack
            link.symlink_to(path)
    for path in (HERE / "project" / "cache").glob("*"):
        shutil.copyfile(path, work / "project" / "cache" / path.name)


def bring(requirements: list[str]) -> None:
    """Install what is missing; what is there stays as it is, torch above all."""
    missing = [one for one in requirements if not installed(one)]
    other = [
        f"{one} ({have} here)" for one in requirements if (have := installed(one)) and have.split("+")[0] not in one
    ]
    if other:
        print(f"note: other versions than at home: {', '.join(other)}", flush=True)
    if not missing:
        return
    print(f"installing {' '.join(missing)}", flush=True)
    kept = [f"{name}=={installed(name)}" for name in KEPT if installed(name)]
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing, *kept])
    if done.returncode:
        sys.exit(f"error: missing: {', '.join(missing)}. Install them, then run the same command again")


def installed(requirement: str) -> str:
    """Its version here, '' for none."""
    try:
        return version(requirement.partition("==")[0])
    except PackageNotFoundError:
        return ""


def images() -> Path:
    """The folder of the images: the pack's own, or where Kaggle has the first of them."""
    if (HERE / "images").is_dir():
        return HERE / "images"
    first = Path(read("images.json")["ids"][0])
    found = next(KAGGLE.rglob(str(first)), None) if KAGGLE.is_dir() else None
    if found is None:
        sys.exit("error: no images: give --images folder")
    return found.parents[len(first.parts) - 1]


if __name__ == "__main__":
    sys.exit(main())
