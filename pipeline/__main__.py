"""`python -m pipeline <verb>`, installed as `zero-shot <verb>`: finds the verb in cli/ and tells errors in a line."""

import gc
import io
import os
import sys
import warnings
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; exit code 1: a user's mistake, told in a line on stderr; 3: a submission with damaged images."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("\ninterrupted: finished shards are kept; run the same command again to go on", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    from .cli._options import parse, runtime_of  # not at the top: Ctrl-C while they are imported ends in a line as well
    from .core.errors import UserError

    args = parse(arguments)
    warnings.filterwarnings("ignore", module="PIL")  # what matters of an image file is told by chain/damage.py
    try:
        return args.module.run(runtime_of(args), args) or 0
    except UserError as error:
        _complain(str(error))
        return 1
    except OSError as error:
        _complain(f"{error}. What was finished is kept; when that is mended, run the same command again to go on")
        return 1


def _complain(message: str) -> None:
    from .core.console import RED, coloured

    print(f"{coloured('error:', RED, sys.stderr)} {message}", file=sys.stderr)


class _Output(io.FileIO):
    """Standard output; when its reader is gone (`make log | head -1`), what is left of it is dropped, not the work."""

    def write(self, data) -> int | None:  # type: ignore[override]  # typeshed has it twice
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)


def run() -> int:
    """The command `zero-shot`."""
    raw = _Output(sys.stdout.fileno(), "w", closefd=False)
    # errors as of stderr: a name that the terminal cannot show stops nothing
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), sys.stdout.encoding, "backslashreplace", line_buffering=raw.isatty()
    )
    try:
        return main()
    finally:
        gc.freeze()  # the end of a process is no time to look for garbage: with torch it takes as long as a prompt edit


if __name__ == "__main__":
    sys.exit(run())
