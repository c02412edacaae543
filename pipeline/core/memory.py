"""What memory costs: freed memory is kept by a process that computes, and nobody looks for garbage where there is none.

torch's CPU allocator takes every activation from malloc. glibc gives large blocks back to the kernel as soon as they
are free, and the next batch page-faults the same memory in again: half the time of a convolutional tower.
"""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator

# mallopt's numbers, of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
KEPT = 1 << 30  # bytes: blocks below that are kept, however many; larger ones are rare and go back


def keep_freed() -> bool:
    """Keep freed memory for the next batch instead of handing it to the kernel; whether this C library does so.

    What a user set in the environment stays. To be called before anything large is allocated.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    # glibc before 2.36 takes no threshold above 32 MiB; there blocks of any size are kept
    return bool((mallopt(M_MMAP_THRESHOLD, KEPT) or mallopt(M_MMAP_MAX, 0)) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While large packages are imported: none of the hundred thousands of objects that this makes is garbage.

    They are not looked at again later either. Once in a process: later there may be garbage.
    """
    if gc.get_freeze_count():
        yield
        return
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if searched:
            gc.enable()
