"""`python -m pipeline <verb>`, or `zero-shot <verb>` where the package is installed: one verb per make target."""

import sys

from .cli.main import main


def run() -> int:
    """The command `zero-shot`."""
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name that the terminal cannot show stops nothing
    return main()


if __name__ == "__main__":
    sys.exit(run())
