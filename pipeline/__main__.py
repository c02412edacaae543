"""`python -m pipeline <verb>`: one verb per make target."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name that the terminal cannot show stops nothing
    sys.exit(main())
