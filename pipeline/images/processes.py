"""Decoding in processes of its own, whose pixels go straight into memory that is shared with them.

Threads take turns at what Pillow does in Python, and of a small image that is half of the work. A process here is a
Python that imports neither torch nor models. It lives as long as the socket to the one that started it: however that
ends, no process stays, and the shared memory has no name that could be left behind.
"""

import contextlib
import errno
import math
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.errors import Unavailable
from ..core.memory import keep_freed
from ..recipes import Preprocess
from .decoding import Decoded, Policy, read
from .ops import compile_recipe
from .problems import Errors, Problem, picture, prepared

HOUSE = Path(__file__).parent.parent  # the package
START = "import sys; sys.path.insert(0, sys.argv[1]); from {} import main; main(int(sys.argv[2]), int(sys.argv[3]))"
PATIENCE = 10  # seconds for a process to end that has nothing more to do


class Way(NamedTuple):
    """How all images are prepared: a recipe, which is written `where`, and what is done about damaged ones."""

    recipe: Preprocess
    where: str
    policy: Policy


class Wanted(NamedTuple):
    """An image of row `row`: its file, its id, and the content that it had when the run began."""

    row: int
    file: str
    name: str
    known: str


class Memory:
    """Memory that processes share: a file without a name or a disk, gone with the last process that has it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("pixels", os.MFD_CLOEXEC)
        self.size, self.lock = 0, threading.Lock()
        self.parts: list[tuple[int, int, int]] = []  # address here, bytes, place in the file

    def array(self, *shape: int) -> np.ndarray:
        """A new part of it, uint8; what is not written to takes none of the machine's."""
        count = math.prod(shape)
        size = -(-count // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        with self.lock:
            place, self.size = self.size, self.size + size
            os.ftruncate(self.fd, self.size)
            array = np.frombuffer(mmap.mmap(self.fd, size, offset=place), np.uint8, count).reshape(shape)
            self.parts.append((array.ctypes.data, size, place))
        return array

    def place(self, array: np.ndarray) -> int | None:
        """Where in it an array begins, if it does."""
        at = array.ctypes.data
        return next((place + at - first for first, size, place in self.parts if first <= at < first + size), None)

    def close(self) -> None:
        """No more arrays; those that there are stay as long as they are used."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class Decoder:
    """One process that decodes; to be used by one thread at a time, and closed."""

    def __init__(self, way: Way, memory: Memory):
        self.memory, self.own = memory, np.empty(0, np.uint8)
        ours, theirs = socket.socketpair()
        with theirs:
            fds = theirs.fileno(), memory.fd
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", START.format(__name__), str(HOUSE.parent), *map(str, fds)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                process_group=0,  # Ctrl-C is for the one that started it
            )
        self.connection = Connection(ours.detach())
        self._asked(way)

    def prepare(self, wanted: list[Wanted], into: np.ndarray) -> tuple[Errors, list[Problem]]:
        """As `problems.prepared`, into an array with a row for each; Unavailable when the process is gone.

        It writes straight into shared memory. Other memory, such as what a GPU copies from, is copied into.
        """
        place = self.memory.place(into)
        if place is None and len(self.own) < into.nbytes:
            self.own = self.memory.array(into.nbytes)
        self._asked((wanted, self.memory.place(self.own) if place is None else place))
        try:
            found = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._gone() from None
        if isinstance(found, BaseException):
            raise found
        if place is None:
            into[...] = self.own[: into.nbytes].reshape(into.shape)
        return found

    def _asked(self, what) -> None:
        try:
            self.connection.send_bytes(pickle.dumps(what))
        except OSError:
            raise self._gone() from None

    def _gone(self) -> Unavailable:
        self.close()
        status = self.process.returncode
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
        return Unavailable(
            f"a process that decodes images {how}: not enough memory, or somebody's doing. What was finished is kept; "
            "run the same command again with fewer WORKERS (1: no other process decodes)"
        )

    def close(self) -> None:
        """End the process, which has nothing to do."""
        self.connection.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main(fd: int, memory: int) -> None:
    """What the process does: decode what is asked for on the socket `fd`, until nobody is there any more."""
    for name in (signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")
    keep_freed()
    connection = Connection(fd)
    with contextlib.suppress(EOFError, OSError):
        way = pickle.loads(connection.recv_bytes())
        apply = compile_recipe(way.recipe, way.where)
        while True:
            wanted, place = pickle.loads(connection.recv_bytes())
            connection.send_bytes(_answer(partial(_prepared, way, apply, wanted, memory, place)))
    os._exit(0)  # there is nothing to tidy up, and who closes it waits


def _answer(work: Callable) -> bytes:
    try:
        return pickle.dumps(work())
    except Exception as error:  # a bug, or no memory: told where it was asked for
        try:
            return pickle.dumps(error)
        except Exception:
            return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _prepared(way: Way, apply: Callable, wanted: list[Wanted], memory: int, place: int) -> tuple[Errors, list[Problem]]:
    """`prepared` for images in files, from a place in the memory behind a file descriptor on."""
    first = wanted[0].row

    def opened(row: int) -> Decoded:
        _, file, name, known = wanted[row - first]
        return picture(partial(read, file, way.recipe.draft_size, way.policy), name, known, way.policy)

    def put(row: int, pixels: np.ndarray) -> None:
        written = os.pwrite(memory, pixels, place + (row - first) * pixels.nbytes)
        if written < pixels.nbytes:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    return prepared((one.row for one in wanted), opened, apply, way.recipe.size, put)
