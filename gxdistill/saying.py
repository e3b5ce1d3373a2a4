"""How what takes long tells the user what it does."""

import sys
from collections.abc import Callable

Say = Callable[[str], None]  # Takes a line.


def say(line: str) -> None:
    """Writes to standard error, so that what a command prints stays fit to be piped."""
    print(line, file=sys.stderr, flush=True)
