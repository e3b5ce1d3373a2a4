"""Tells how far a command is."""

import sys


def say(line: str) -> None:
    """Writes to standard error, which keeps what a command prints fit to be piped."""
    print(line, file=sys.stderr, flush=True)
