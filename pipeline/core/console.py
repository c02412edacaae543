"""What a run says: a line per stage, warnings on stderr, a progress bar. Of several processes the first speaks."""

import os
import sys
from typing import Any


def rank() -> int:
    """Number of this process among those a launcher started (torchrun, accelerate launch)."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes a launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def progress(text: str, unit: str, total: int | None = None, hidden: bool = False) -> Any:
    """A bar with rate and time left; silent when not on a terminal, and in all processes but the first."""
    from tqdm import tqdm

    return tqdm(total=total, desc=text, unit=unit, disable=True if hidden or rank() else None)


def say(stage: str, subject: str, message: str) -> None:
    """The one line a stage prints about what it reused and computed."""
    if rank() == 0:
        print(f"{stage:<10} {subject}: {message}", flush=True)


def next_step(command: str) -> None:
    """What one does now, as the last line of a verb: `next: make ...`."""
    if rank() == 0:
        print(f"{coloured('next:', GREEN, sys.stdout)} {command}", flush=True)


YELLOW, GREEN = 33, 32


def coloured(text: str, colour: int, stream: Any) -> str:
    """In a colour of the terminal, where the stream is one and nobody said NO_COLOR (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{colour}m{text}\033[0m"


def warn(message: str) -> None:
    print(f"{coloured('warning:', YELLOW, sys.stderr)} {message}", file=sys.stderr, flush=True)
