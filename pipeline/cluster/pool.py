"""A pool of Ray actors and the queue of shards that they work off.

Shards are checkpoints already, each made whole or not at all, and the same whoever makes it. So nothing is kept here: a
shard whose actor is lost goes to another, actors come back when there is room for them, and the next run asks for what
is missing.
"""

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.console import progress, say
from ..core.errors import Unavailable
from ..core.extras import need
from ..core.memory import keep_freed

Rows = Callable[[int, int], Any]  # computes the rows start..stop, keeps them, and returns what is to be told
Begin = Callable[[], Rows]  # loads what that needs
PACKAGE = Path(__file__).parents[1]
WAIT = 1.0  # seconds between two looks at who is there
LOST = 5  # times that one shard may lose its actor before it is taken for the reason
LOCAL = "local"


class Actor:
    """In a process of its own on some machine: keeps what it began, above all a model in memory."""

    def __init__(self):
        keep_freed()
        self.key, self.begun = "", None

    def node(self) -> str:
        """The machine's name; answers as soon as the actor is there."""
        import ray

        return f"{os.uname().nodename} {ray.get_runtime_context().get_node_id()[:4]}"

    def rows(self, key: str, begin: Begin, start: int, stop: int) -> Any:
        if key != self.key:
            self.key, self.begun = "", None  # what comes next may need the memory
            self.key, self.begun = key, begin()
        return self.begun(start, stop)


@dataclass
class Pool:
    """The actors of a run. `address` is RAY: `local`, `auto` (the cluster of this machine) or an address."""

    address: str
    cores: int = 0  # of each actor where there are no GPUs; 0: those of the smallest machine
    most: int = 1_000_000  # actors
    actors: dict = field(default_factory=dict)  # actor: the machine that it is on, '' while it is not there
    refs: dict = field(default_factory=dict)  # what is under way: (actor, shard or None for where it is)

    looked: float = -WAIT

    def __reduce__(self):
        return type(None), ()  # what is sent to an actor may refer to the run; an actor has no pool of its own

    def run(self, what: str, key: str, begin: Begin, gaps: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, Any]]:
        """(start, stop, what was told) of each gap, as they come. Errors of a user are raised as they are."""
        ray = self._start()
        todo = deque(gaps)
        lost: Counter = Counter()  # by shard
        done: Counter = Counter()  # images, by machine
        total, began = sum(stop - start for start, stop in todo), time.monotonic()
        sent = ray.put(begin)
        working: dict = {}
        with progress(what, "image", total) as bar:
            while todo or working:
                self._look_for_room()
                for actor in [one for one, node in self.actors.items() if node and one not in working.values()]:
                    if todo:
                        shard = todo.popleft()
                        ref = actor.rows.remote(key, sent, *shard)
                        self.refs[ref], working[ref] = (actor, shard), actor
                if not self.refs:  # not one machine yet
                    time.sleep(WAIT)
                    continue
                ready, _ = ray.wait(list(self.refs), num_returns=1, timeout=WAIT)
                for ref in ready:
                    actor, shard = self.refs.pop(ref)
                    working.pop(ref, None)
                    told, alive = self._answer(ref)
                    if not alive:
                        self._lost(actor, shard, todo, lost)
                    elif shard is None:
                        self.actors[actor] = told
                    else:
                        done[self.actors[actor]] += shard[1] - shard[0]
                        bar.update(shard[1] - shard[0])
                        bar.set_postfix_str(_rates(done, time.monotonic() - began))
                        yield *shard, told
        seconds = time.monotonic() - began
        say("ray", what, f"{total} images in {seconds:.1f} s: {_rates(done, seconds)}")

    def _start(self) -> Any:
        """Ray, with the cluster that is meant; UserError where there is none."""
        need("ray", "LAUNCH=ray")
        import ray

        if ray.is_initialized():
            return ray
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options: dict = {"address": LOCAL, "log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
        if self.address != LOCAL:
            options = {"address": self.address, "runtime_env": {"py_modules": [str(PACKAGE)]}, "log_to_driver": False}
        try:
            _reach(self.address)
            ray.init(**options)
        except (OSError, RuntimeError, ValueError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise Unavailable(
                f"RAY={self.address}: no Ray cluster answers ({first}). Start one: ray start --head"
            ) from None
        return ray

    def _look_for_room(self) -> None:
        """As many actors as the machines that are there now have room for; those that were lost wait for theirs."""
        import ray

        if time.monotonic() - self.looked < WAIT:
            return
        self.looked = time.monotonic()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        if gpus:
            room, share = gpus, {"num_gpus": 1, "num_cpus": max(1, sum(cores) // gpus // 2)}
        else:
            each = min(self.cores or min(cores, default=1), max(cores, default=1))
            room, share = sum(count // each for count in cores), {"num_cpus": each}
        while len(self.actors) < min(room, self.most):
            # what was under way is put back by us; Ray itself starts the actor anew where there is room
            actor = ray.remote(Actor).options(max_restarts=-1, max_task_retries=0, **share).remote()
            self.actors[actor] = ""
            self._ask(actor)

    def _ask(self, actor: Any) -> None:
        self.actors[actor] = ""
        self.refs[actor.node.remote()] = (actor, None)

    def _answer(self, ref: Any) -> tuple[Any, bool]:
        """What an actor told, and whether it is alive."""
        import ray

        try:
            return ray.get(ref), True
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            raise cause from None
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.NodeDiedError):
            return None, False

    def _lost(self, actor: Any, shard: tuple[int, int] | None, todo: deque, lost: Counter) -> None:
        """Give the shard of an actor that died to the others, and wait until there is room for it again."""
        if shard is not None:
            lost[shard] += 1
            if lost[shard] > LOST:
                raise Unavailable(
                    f"images {shard[0]} to {shard[1]}: {LOST} workers died on them; is their memory enough?"
                )
            todo.appendleft(shard)
        try:
            self._ask(actor)
        except Exception:  # an actor that Ray gave up
            del self.actors[actor]

    def close(self) -> None:
        """Let go of the machines."""
        import ray

        if ray.is_initialized():
            for actor in self.actors:
                ray.kill(actor)
            ray.shutdown()
        self.actors.clear()
        self.refs.clear()


def _reach(address: str) -> None:
    """OSError where nobody listens at host:port; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=30).close()


def _rates(done: Counter, seconds: float) -> str:
    """Images a second of each machine."""
    return ", ".join(f"{node} {count / max(seconds, 1e-9):.1f}/s" for node, count in done.items())
