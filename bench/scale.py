"""Spreading over machines: what a shard costs the driver, how the rate grows with workers, what the driver holds.

Workers are Ray actors of one core on this machine. Their tower costs a constant time for each image and no core, as a
GPU's does, so that what is measured is the spreading and not this machine's cores.
"""

import resource
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
HEADING = """### Spreading over machines (bench/scale.py)

Ray actors of one core on this machine, with a tower of constant cost: it waits, and takes no core.
"""
SHARDS = (100, 1_000, 10_000)
WORKERS = (1, 2, 3)
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
    return "\n".join(lines)


if __name__ == "__main__":
    print(main())
