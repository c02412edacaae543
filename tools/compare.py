"""Compare two checkouts: the same work with both, and are the tables they write the same, byte by byte?

    python tools/compare.py ../before . [--quick] [--only demo] [--shared folder] [--python path]

Each checkout is copied (what git tracks, as it lies there, and new files that git does not ignore) and everything
runs in the copies, through the command line only, so that checkouts of different layouts can be compared. Prints a
row per command and exits 1 on any difference. The demo comes with the checkout; the rest needs photographs and a small
real dual encoder (--shared) and is left out, and said, where they are missing.
"""

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LIT = """\
lit:
  family: open_clip
  weights: ../shared/weights/lit_mobilenet_minilm
  preprocess: plain
"""
LIT_ALONE = "members: {lit@plain: 1}\nthreshold: 0.002\npooling: mean\n"
FEW_IMAGES = "data/scene/images/8*.jpg"  # --quick: 211 of 8,100


@dataclass(frozen=True)
class Work:
    """A command line and the tables it writes; of two checkouts these must be equal."""

    name: str
    command: str
    tables: str  # a glob, relative to the project
    photographs: bool = True  # whether ../shared is needed


def works(quick: bool) -> list[Work]:
    """All that is compared, in an order in which later commands find the features of earlier ones."""
    scene = "submit --competition scene --dtype fp32" + (f" --data {FEW_IMAGES}" if quick else "")
    shots, seeds = ("1 4", 2) if quick else ("1 2 4 8 16", 3)
    demo = "submissions/demo/[0-9]*.csv"
    return [
        *(
            Work(f"submit {ensemble}, {dtype}", f"submit --ensemble {ensemble} --dtype {dtype}", demo, False)
            for dtype in ("fp32", "auto")
            for ensemble in ("demo", "demo-refined")
        ),
        Work("sweep demo", "sweep --recipe demo --dtype fp32", "cache/**/sweeps/*.csv", False),
        Work(
            "predict demo",
            "predict --model demo-vit --images demo/images --labels forest,glacier,sea --dtype fp32",
            "results.csv",
            False,
        ),
        Work("submit scene with demo, fp32", f"{scene} --ensemble demo", "submissions/scene/[0-9]*.csv"),
        Work("submit scene with lit, fp32", f"{scene} --ensemble lit", "submissions/scene/[0-9]*.csv"),
        Work(
            "benchmark lit",
            "benchmark --models lit --datasets intel-dev few-shot --prompts plain own --dtype fp32"
            " --poolings embedding mean logit_mean logit_median",
            "cache/benchmarks/latest.csv",
        ),
        Work(
            "kshot lit few-shot",
            f"kshot --model lit --dataset few-shot --shots {shots} --seeds {seeds} --dtype fp32",
            "reports/training/kshot-*.csv",
        ),
    ]


def copy_of(checkout: Path, target: Path, shared: Path | None) -> Path:
    """The checkout's own files in `target`, with the photographs and models of ../shared where there are any."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (checkout / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, target / name)
    if shared:
        (target / "data").symlink_to(shared / "data")
        (target / "models.local.yaml").write_text(LIT)
        (target / "ensembles" / "lit.yaml").write_text(LIT_ALONE)
    return target


def tables_of(work: Work, project: Path, python: str) -> tuple[dict[str, bytes] | str, float]:
    """({file: content} of the tables that the command writes, or why it failed; seconds)."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)  # the copy's package and no other
    start = time.perf_counter()
    done = subprocess.run(
        [python, "-m", "pipeline", *work.command.split()], cwd=project, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    files = [path for path in sorted(project.glob(work.tables)) if path.is_file()]
    found = {path.relative_to(project).as_posix(): path.read_bytes() for path in files}
    shutil.rmtree(project / "submissions", ignore_errors=True)  # the next one starts at 001 as well
    for path in files:
        path.unlink(missing_ok=True)
    if done.returncode or not found:
        last = (done.stderr.strip() or "it wrote no table").splitlines()[-1]
        return f"exit status {done.returncode}: {last}", seconds
    return found, seconds


def difference(before: bytes, after: bytes) -> str:
    """'' for equal bytes, else how many cells differ and the first of them."""
    if before == after:
        return ""
    old, new = (list(csv.reader(io.StringIO(content.decode()))) for content in (before, after))
    if [len(row) for row in old] != [len(row) for row in new]:
        return f"{len(old)} lines were {len(new)}, or other columns"
    cells = [
        (number, was, now)
        for number, (was_row, now_row) in enumerate(zip(old, new, strict=True), 1)
        for was, now in zip(was_row, now_row, strict=True)
        if was != now
    ]
    if not cells:
        return "equal cells, other quotes or line ends"
    number, was, now = cells[0]
    return f"{len(cells)} of {sum(map(len, old))} cells, first on line {number}: {was} was {now}"


def verdict(before: dict[str, bytes] | str, after: dict[str, bytes] | str) -> str:
    """'' where two checkouts wrote the same tables, else what differs."""
    for side, tables in (("before", before), ("after", after)):
        if isinstance(tables, str):
            return f"{side}: {tables}"
    if before.keys() != after.keys():
        return f"files: {sorted(before)} were {sorted(after)}"
    return "; ".join(
        f"{name}: {what}" for name, content in before.items() if (what := difference(content, after[name]))
    )


def compare(checkouts: list[Path], folder: Path, chosen: list[Work], python: str, shared: Path | None) -> int:
    """Run all work in copies below `folder`, print a row for each, and return the number of differences."""
    projects = [copy_of(path, folder / side, shared) for side, path in zip(("before", "after"), checkouts, strict=True)]
    if shared:
        (folder / "shared").symlink_to(shared)  # models may name files of theirs relative to the project
    wide, different = max(len(work.name) for work in chosen), 0
    print(f"{'':{wide}}    before     after   result")
    for work in chosen:
        print(f"{work.name:{wide}}", end="", flush=True)
        found = []
        for project in projects:
            tables, seconds = tables_of(work, project, python)
            found.append(tables)
            print(f"  {seconds:6.1f} s", end="", flush=True)
        what = verdict(*found)
        different += bool(what)
        count = "" if what else f"{len(found[0])} table, {sum(map(len, found[0].values())):,} bytes"
        print(f"   {f'DIFFERENT  {what}' if what else f'identical  {count}'}", flush=True)
    return different


def main() -> int:
    """Exit status 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout, such as a git worktree of an older commit")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--python", default=sys.executable, help="interpreter for both (default: this one)")
    parser.add_argument("--quick", action="store_true", help="211 of the 8,100 photographs, fewer shots and seeds")
    parser.add_argument("--only", default="", metavar="WORDS", help="only work whose name contains this")
    parser.add_argument("--shared", type=Path, help="folder of data/ and weights/ (default: shared beside the second)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this new folder and leave it")
    args = parser.parse_args()
    checkouts = [args.before.resolve(), args.after.resolve()]
    shared = (args.shared or checkouts[1].parent / "shared").resolve()
    shared = shared if (shared / "data").is_dir() else None
    chosen = [work for work in works(args.quick) if args.only in work.name and (shared or not work.photographs)]
    if not chosen:
        parser.error(f"nothing to compare is called {args.only!r}")
    if not shared:
        print("no folder of photographs (--shared): only the demo is compared", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="compare-") as temporary:
        different = compare(checkouts, args.keep or Path(temporary), chosen, args.python, shared)
    print(f"{len(chosen) - different} of {len(chosen)} identical")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
