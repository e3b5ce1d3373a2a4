"""What long work shows the user: a line now and then, on standard error."""

import io
import sys
import time
from collections.abc import Callable

from gxdistill.runtime import interrupts

Log = Callable[[str], None]  # Takes a line.


def log(line: str) -> None:
    """Writes to standard error, so that what a command prints stays fit to be piped."""
    print(line, file=sys.stderr, flush=True)


def escape_what_cannot_be_written() -> None:
    """Has both outputs show as escapes what their encoding lacks: half a name is better than none.

    A file's name may be no text at all, and a terminal, a pipe or a log may be of ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def hush(_: str) -> None:
    """Says nothing: the `Log` of work that nobody listens to."""


class Progress:
    """Says how far a loop is, at most every few seconds: rate and time left."""

    def __init__(self, log: Log, what: str, first: int = 0, every: float = 5.0):
        """Starts the clock at item `first`; speaks every `every` seconds through `say`."""
        self.log, self.what, self.every = log, what, every
        self.first, self.began = first, time.monotonic()
        self.last = self.began

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Takes note that `done` of `total` items are done; `note` ends the line.

        Raises:
          KeyboardInterrupt: one was asked for, and lost on its way.
        """
        interrupts.check_unless_held()
        now = time.monotonic()
        if now - self.last < self.every and done < total:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.began, 1e-9)
        left = (total - done) / rate if rate else 0
        self.log(f"{self.what}: {done}/{total}, {rate:.3g}/s, {left:.0f} s left{note}")
