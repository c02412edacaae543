"""A pool of Ray actors and the queue of shards that they work off.

Shards are checkpoints already, each made whole or not at all, and the same whoever makes it. So nothing is kept here: a
shard whose actor is lost goes to another, actors come back when there is room for them, and the next run asks for what
is missing.
"""

import contextlib
import itertools
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.console import overheard, progress, say, warn
from ..core.errors import Unavailable
from ..core.extras import need
from ..core.memory import keep_freed

Shard = tuple[int, int]  # rows start..stop
# keeps the rows start..stop, told which shard will probably be next, and returns what is to be told
Rows = Callable[[int, int, Shard | None], Any]
Begin = Callable[[], Rows]  # loads what that needs
PACKAGE = Path(__file__).parents[1]
WAIT = 1.0  # seconds between two looks at who is there
END = 10.0  # seconds that actors have to let go of what they began
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

    def rows(self, key: str, begin: Begin, shard: Shard, following: Shard | None) -> tuple[Any, list[str]]:
        """What is to be told of a shard, and the warnings on the way; `following` is what will probably be next."""
        with overheard() as warnings:
            if key != self.key:
                self.end()  # what comes next may need the memory
                self.key, self.begun = key, begin()
            return self.begun(*shard, following), warnings

    def end(self) -> None:
        """Let go of what was begun."""
        if hasattr(self.begun, "close"):
            self.begun.close()
        self.key, self.begun = "", None


class Queue:
    """The shards of a run: those to do, and those that actors are at."""

    def __init__(self, gaps: Iterable[Shard]):
        self.todo = dict.fromkeys(gaps)  # in their order, and any can be taken out
        self.rows = sum(stop - start for start, stop in self.todo)
        self.working: dict[Any, Shard] = {}  # by actor
        self.expected: dict[Any, Shard] = {}  # what an actor was told that it will have next
        self.deaths: Counter = Counter()  # by shard

    def take(self, actor: Any, actors: int) -> tuple[Shard, Shard | None]:
        """A shard for an actor, the one that it expects if that is not taken; and which one it may expect then.

        Nothing is kept back for anybody: at the end whoever is idle takes what others expect.
        """
        free = self._free(actors)
        expected = self.expected.pop(actor, None)
        shard = expected if expected in self.todo else next(free, None) or next(reversed(self.todo))
        del self.todo[shard]
        self.working[actor] = shard
        following = next(self._free(actors), None)
        if following:
            self.expected[actor] = following
        return shard, following

    def _free(self, actors: int) -> Iterator[Shard]:
        """The first shards to do that nobody expects; not more than `actors` are expected or begun at a time."""
        taken = set(self.expected.values())
        return (one for one in itertools.islice(self.todo, 2 * actors + 1) if one not in taken)

    def lost(self, actor: Any) -> None:
        """Give the shard of an actor that died to the others; Unavailable where that happens to it again and again."""
        self.expected.pop(actor, None)
        shard = self.working.pop(actor, None)
        if shard is None:
            return
        self.deaths[shard] += 1
        if self.deaths[shard] > LOST:
            raise Unavailable(f"images {shard[0]} to {shard[1]}: {LOST} workers died on them; is their memory enough?")
        self.todo = {shard: None, **self.todo}


@dataclass
class Pool:
    """The actors of a run. `address` is RAY: `local`, `auto` (the cluster of this machine) or an address."""

    address: str
    cores: int = 0  # of each actor where there are no GPUs; 0: those of the smallest machine
    most: int = 1_000_000  # actors
    actors: dict = field(default_factory=dict)  # actor: the machine that it is on, '' while it is not there
    refs: dict = field(default_factory=dict)  # what is under way: (actor, shard or None for where it is)
    warned: set = field(default_factory=set)  # what actors have warned of
    looked: float = -WAIT

    def __reduce__(self):
        return type(None), ()  # what is sent to an actor may refer to the run; an actor has no pool of its own

    def run(self, what: str, key: str, begin: Begin, gaps: Iterable[Shard]) -> Iterator[tuple[int, int, Any]]:
        """(start, stop, what was told) of each gap, as they come. Errors of a user are raised as they are.

        Whatever ends it early, Ctrl-C above all, lets go of the machines.
        """
        queue = Queue(gaps)
        try:
            yield from self._run(what, key, self._start().put(begin), queue)
        except BaseException:
            self.close()
            raise

    def _run(self, what: str, key: str, begin: Any, queue: "Queue") -> Iterator[tuple[int, int, Any]]:
        import ray

        done: Counter = Counter()  # images, by machine
        total, began = queue.rows, time.monotonic()
        with progress(what, "image", total) as bar:
            while queue.todo or queue.working:
                self._look_for_room()
                idle = [one for one, node in self.actors.items() if node and one not in queue.working]
                for actor in idle[: len(queue.todo)]:
                    shard, following = queue.take(actor, len(self.actors))
                    self.refs[actor.rows.remote(key, begin, shard, following)] = actor, shard
                if not self.refs:  # not one machine yet
                    time.sleep(WAIT)
                    continue
                ready, _ = ray.wait(list(self.refs), num_returns=1, timeout=WAIT)
                for ref in ready:
                    actor, shard = self.refs.pop(ref)
                    told, alive = self._answer(ref)
                    if not alive:
                        queue.lost(actor)
                        self._lost(actor)
                    elif shard is None:
                        self.actors[actor] = told
                    else:
                        queue.working.pop(actor)
                        done[self.actors[actor]] += shard[1] - shard[0]
                        bar.update(shard[1] - shard[0])
                        bar.set_postfix_str(_rates(done, time.monotonic() - began))
                        yield *shard, self._heard(*told)
        seconds = time.monotonic() - began
        self._end()
        say("ray", what, f"{total} images in {seconds:.1f} s: {_rates(done, seconds)}")

    def _end(self) -> None:
        """Actors let go of what they began: a model, threads, what they began beforehand."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # of one that died just now
            ended = [actor.end.remote() for actor, node in self.actors.items() if node]
            ray.wait(ended, num_returns=len(ended), timeout=END)

    def _heard(self, told: Any, warnings: list[str]) -> Any:
        """What was told; the warnings, which many actors may have, are said once."""
        for message in warnings:
            if message not in self.warned:
                self.warned.add(message)
                warn(message)
        return told

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
                f"RAY={self.address}: no Ray cluster answers ({first}). Start one: ray start --head{_token()}"
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

    def _lost(self, actor: Any) -> None:
        """Wait until there is room again for an actor that died."""
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


def _token() -> str:
    """Ray itself hides that a cluster refused whoever has no token."""
    return "" if "RAY_AUTH_MODE" in os.environ else ", or, where it has a token: export RAY_AUTH_MODE=token"


def _rates(done: Counter, seconds: float) -> str:
    """Images a second of each machine."""
    return ", ".join(f"{node} {count / max(seconds, 1e-9):.1f}/s" for node, count in done.items())
