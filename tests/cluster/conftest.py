"""Three machines of one core each, played by processes of this one."""

import contextlib
import importlib.util
import time
from collections.abc import Iterator

import pytest


class Machines:
    """A Ray cluster whose nodes come and go; the first stays, as the driver talks to it."""

    def __init__(self, count: int):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.others = [self.cluster.add_node(num_cpus=1) for _ in range(count - 1)]
        self.cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        return self.cluster.address

    def kill(self) -> None:
        """Take a machine away without a word, and bring another."""
        self.cluster.remove_node(self.others.pop(0), allow_graceful=False)
        self.others.append(self.cluster.add_node(num_cpus=1))


@contextlib.contextmanager
def machines(count: int = 3) -> Iterator[Machines]:
    if not importlib.util.find_spec("ray"):
        pytest.skip("no Ray: install the extra ray")
    import ray

    found = Machines(count)
    try:
        yield found
    finally:
        if ray.is_initialized():
            ray.shutdown()
        found.cluster.shutdown()
        time.sleep(0.5)
