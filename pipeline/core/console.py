"""What a run says: a line per stage, warnings on stderr, a progress bar. Of several processes the first speaks."""

import functools
import os
import sys


def rank() -> int:
    """Number of this process among those a launcher started (torchrun, accelerate launch)."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes a launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def progress(text: str, unit: str, total: int | None = None):
    """A bar with rate and time left; silent when not on a terminal, and in all processes but the first."""
    from tqdm import tqdm

    return tqdm(total=total, desc=text, unit=unit, disable=None if rank() == 0 else True)


def say(stage: str, subject: str, message: str) -> None:
    """The one line a stage prints about what it reused and computed."""
    if rank() == 0:
        print(f"{stage:<10} {subject}: {message}", flush=True)


@functools.cache
def say_once(stage: str, subject: str, message: str) -> None:
    """`say`, once in a run: several parts of a recipe may need one stage."""
    say(stage, subject, message)


@functools.cache
def warn_once(message: str) -> None:
    """`warn`, once in a run."""
    warn(message)


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
