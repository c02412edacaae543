"""What a run says: a line per stage, warnings on stderr, a progress bar. Of several processes the first speaks.

Nothing is wider than `width`. An error stays one line, for programs and for copying.
"""

import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
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
    tell(f"{stage:<10} {subject}: {message}", " " * 11)


def next_step(command: str) -> None:
    """What one does now, as the last line of a verb: `next: make ...`."""
    if rank() == 0:
        text = wrapped(f"next: {command}", " " * 6)
        print(text.replace("next:", coloured("next:", GREEN, sys.stdout), 1), flush=True)


def tell(text: str, indent: str = "") -> None:
    """Print lines of text; what does not fit goes on below, indented."""
    if rank() == 0:
        print(wrapped(text, indent), flush=True)


def width() -> int:
    """Columns that may be printed: COLUMNS of the environment, else the terminal's, else 80."""
    return shutil.get_terminal_size().columns


def wrapped(text: str, indent: str = "") -> str:
    """Lines broken between words to fit; a path or another long word stays whole. What goes on is indented."""
    return "\n".join(_broken(line, indent) for line in text.split("\n"))


def _broken(line: str, indent: str) -> str:
    if len(line) <= width():
        return line
    own = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line,
        width(),
        subsequent_indent=own + indent,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )


RED, GREEN, YELLOW = 31, 32, 33


def signed(text: str, change: float) -> str:
    """A gain in green and a loss in red, where there are colours."""
    colour = GREEN if change > 0 else RED
    return coloured(text, colour, sys.stdout) if change else text


def coloured(text: str, colour: int, stream: Any) -> str:
    """In a colour of the terminal, where the stream is one and nobody said NO_COLOR (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{colour}m{text}\033[0m"


_overheard: list[list[str]] = []  # where warnings go instead


@contextlib.contextmanager
def overheard() -> Iterator[list[str]]:
    """The warnings of the block, in all its threads: they are not printed, whoever asked for the work says them."""
    heard: list[str] = []
    _overheard.append(heard)
    try:
        yield heard
    finally:
        _overheard.pop()


def warn(message: str) -> None:
    if _overheard:
        _overheard[-1].append(message)
        return
    text = wrapped(f"warning: {message}", " " * 9)
    print(text.replace("warning:", coloured("warning:", YELLOW, sys.stderr), 1), file=sys.stderr, flush=True)
