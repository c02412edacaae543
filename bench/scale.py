"""Spreading over machines: what a shard costs the driver, how the rate grows with workers, what the driver holds.

Workers are Ray actors of one core on this machine. Their tower costs a constant time for each image and no core, as a
GPU's does, so that what is measured is the spreading and not this machine's cores.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
HEADING = """### Spreading over machines (bench/scale.py)

Ray actors of one core on this machine, with a tower of constant cost: it waits, and takes no core.
"""
SHARDS = (100, 1_000, 10_000)
WORKERS = (1, 2, 3)
IMAGES, DIMENSIONS, CLASSES, ROWS = 1_000_000, 512, 6, 10_000
STEP = "recommended"
SHARD_SECONDS, ROUNDS, EACH = 0.5, 3, 16  # of a shard, repetitions, shards for each worker


def held() -> float:
    """MB of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def spread(workers: int, shards: int, seconds: float) -> float:
    """Seconds that a warm pool of so many workers takes for so many shards."""
    from pipeline.cluster.pool import Pool

    def begin():
        def rows(start, stop, following):
            time.sleep(seconds)

        return rows

    pool = Pool("local", cores=1, most=workers)
    gaps = [(number, number + 1) for number in range(shards)]
    list(pool.run("warm", "k", begin, [(number, number + 1) for number in range(4 * workers)]))
    while sum(map(bool, pool.actors.values())) < workers:  # all of them are there
        list(pool.run("warm", "k", begin, [(0, 1)]))
        time.sleep(0.5)
    began = time.perf_counter()
    for _ in pool.run(f"{workers} workers", "k", begin, gaps):
        pass
    taken = time.perf_counter() - began
    for actor in pool.actors:
        import ray

        ray.kill(actor)
    return taken


def refined(where: str) -> tuple[float, float, float]:
    """What a guarded step needs for IMAGES, features included: MB of memory, MB of a file's pages in it, seconds."""
    import torch

    from pipeline.core import room
    from pipeline.maths.refine import STEPS, Evidence
    from pipeline.maths.refine.guards import guarded

    room.SHARE = 0.0 if where == "file" else 1.0
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    texts_CD = torch.nn.functional.normalize(torch.randn(CLASSES, DIMENSIONS, generator=draw), dim=1)
    before = resident("RssAnon")
    with Peak() as peak, tempfile.TemporaryDirectory() as folder:
        features_ND = room.room((IMAGES, DIMENSIONS), torch.float16, Path(folder))
        probs_NC = room.room((IMAGES, CLASSES), torch.float32, Path(folder))
        for start in range(0, IMAGES, ROWS):
            label_B = torch.randint(CLASSES, (ROWS,), generator=draw)
            noise_BD = 0.1 * torch.randn(ROWS, DIMENSIONS, generator=draw)
            features_BD = torch.nn.functional.normalize(texts_CD[label_B] + noise_BD, dim=1)
            features_ND[start : start + ROWS] = features_BD
            shift_C = torch.linspace(0, 2, CLASSES)  # the text likes some classes too well
            probs_NC[start : start + ROWS] = (10 * features_BD @ texts_CD.T + shift_C).softmax(dim=1)
        began = time.perf_counter()
        evidence = Evidence(features_ND, texts_CD)
        _, outcome = guarded(STEP, lambda: STEPS[STEP](probs_NC, evidence), probs_NC, evidence)
        taken = time.perf_counter() - began
    assert outcome.changed, outcome
    return peak.own - before, peak.of_files, taken


def resident(what: str) -> float:
    """MB of this process: of memory of its own (RssAnon), or of pages of files (RssFile), which the kernel may drop."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1e3
    return 0.0


class Peak(threading.Thread):
    """The most memory while the block runs."""

    own = of_files = 0.0

    def __enter__(self) -> "Peak":
        self.ended = threading.Event()
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.own = max(self.own, resident("RssAnon"))
            self.of_files = max(self.of_files, resident("RssFile"))


def refinement() -> list[str]:
    """The table of what refinement needs, each in a process of its own."""
    lines = [
        f"`{STEP}`, guarded, of {IMAGES:,} images in {DIMENSIONS} dimensions and {CLASSES} classes, features included:",
        "",
        "| features and probabilities | MB of memory | MB of a file in it, which the kernel may drop | s, one thread |",
        "|---|---|---|---|",
    ]
    for where in ("memory", "file"):
        command = [sys.executable, __file__, "refined", where]
        own, of_files, taken = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        lines.append(
            f"| in {'memory' if where == 'memory' else 'a file'} | {own:,.0f} | {of_files:,.0f} | {taken:.0f} |"
        )
    return lines


def main() -> str:
    import ray

    ray.init("local", num_cpus=max(WORKERS), include_dashboard=False, log_to_driver=False, logging_level="error")
    before = held()
    costs = [(count, spread(3, count, 0.0), held() - before) for count in SHARDS]
    alone = {count: [] for count in WORKERS}
    for _ in range(ROUNDS):
        for count in WORKERS:
            alone[count].append(EACH / spread(count, EACH * count, SHARD_SECONDS) * count)
    rates = {count: statistics.median(found) for count, found in alone.items()}
    ray.shutdown()
    lines = [HEADING, "| shards | ms of the driver for each | MB more in the driver |", "|---|---|---|"]
    lines += [f"| {count:,} | {1000 * seconds / count:.1f} | {more:.0f} |" for count, seconds, more in costs]
    lines += ["", f"| workers | shards of {SHARD_SECONDS} s a second | of linear |", "|---|---|---|"]
    lines += [f"| {n} | {rate:.2f} | {rate / rates[1] / n:.1%} |" for n, rate in rates.items()]
    return "\n".join([*lines, "", *refinement()])


if __name__ == "__main__":
    print(json.dumps(refined(sys.argv[2])) if sys.argv[1:2] == ["refined"] else main())
