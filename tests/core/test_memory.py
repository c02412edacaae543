"""Freed memory is kept: what the kernel is asked for, counted."""

import os
import subprocess
import sys

import pytest

from ..conftest import ROOT

FAULTS = """
import resource, sys
from pipeline.core.memory import keep_freed
kept = keep_freed() if sys.argv[1] == "kept" else None
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 24)  # 128 MiB
before = faults()
for _ in range(20):
    np.ones(1 << 24)
print(kept, faults() - before)
"""


def faults(how: str, **more: str) -> tuple[str, int]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], cwd=ROOT, env=clean | more, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_freed_memory_is_not_asked_for_again():
    _, ordinary = faults("ordinary")
    kept, asked = faults("kept")
    assert kept == "True"
    assert asked < ordinary / 20


def test_what_the_user_set_stays():
    kept, _ = faults("kept", MALLOC_MMAP_THRESHOLD_="131072")
    assert kept == "False"


IMPORTING = """
import gc
from pipeline.core.memory import importing
try:
    with importing():
        inside = gc.isenabled()
        raise ImportError
except ImportError:
    print(inside, gc.isenabled(), gc.get_freeze_count())
for _ in range(2):
    with importing():
        inside = gc.isenabled()
    print(inside, gc.isenabled(), gc.get_freeze_count() > 0)
gc.unfreeze()
gc.disable()
with importing():
    pass
print(gc.isenabled())
"""


def test_nobody_looks_for_garbage_while_packages_are_imported():
    done = subprocess.run([sys.executable, "-c", IMPORTING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False True 0", "False True True", "True True True", "False"]


END = """
import atexit, gc, sys
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 0))
sys.argv[1:] = ["models"]
from pipeline.__main__ import run
run()
"""


def test_nobody_looks_for_garbage_at_the_end_of_a_command():
    done = subprocess.run([sys.executable, "-c", END], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "frozen True"
