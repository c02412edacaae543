"""`python -m pipeline <verb>`, installed as `zero-shot <verb>`: finds the verb in cli/ and tells errors in a line."""

import sys
import warnings
from collections.abc import Sequence

from .cli._options import parse, runtime_of
from .core.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; exit code 1: a user's mistake, told in a line on stderr; 3: a submission with damaged images."""
    args = parse(sys.argv[1:] if arguments is None else arguments)
    warnings.filterwarnings("ignore", module="PIL")  # what matters of an image file is told by chain/damage.py
    try:
        return args.module.run(runtime_of(args), args) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}. What was finished is kept; run the same command again to go on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: finished shards are kept; run the same command again to go on", file=sys.stderr)
        return 130


def run() -> int:
    """The command `zero-shot`."""
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name that the terminal cannot show stops nothing
    return main()


if __name__ == "__main__":
    sys.exit(run())
