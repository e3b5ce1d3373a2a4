"""The program: `gxdistill`, or `python -m gxdistill`."""

import os
import signal
from types import FrameType


def run() -> None:
    """Runs the command line; until that hears signals itself, one ends the program in a line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from gxdistill.cli.main import main

    main()


def _leave(number: int, _: FrameType | None) -> None:
    word = {signal.SIGINT: b"interrupted", signal.SIGTERM: b"terminated"}[signal.Signals(number)]
    os.write(2, b"gxdistill: " + word + b" before it began.\n")
    os._exit(128 + number)


if __name__ == "__main__":  # Processes that `prepare` spawns import this, too.
    run()
