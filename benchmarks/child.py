"""Commands in processes of their own, that end in time, and with the process that started them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.record import ROOT

# Becomes the command, which then ends with its parent: else a command whose parent is killed keeps
# the device, and is in the next start's way. Not between fork and exec, which is unsafe where JAX
# has threads. 1 is PR_SET_PDEATHSIG of Linux's prctl.h.
_ENDS_WITH_PARENT = """
import contextlib, ctypes, os, signal, sys
with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_GRACE = 5.0  # Seconds between asking a command to end and ending it.
_EVERY = 0.2  # Seconds between two looks at a command.


def run(
    command: Sequence[str],
    *,
    seconds: float,
    log: Path,
    environment: Mapping[str, str] | None = None,
    while_running: Callable[[], None] = lambda: None,
) -> int | None:
    """Runs a command from the repository's root, with its output in a file.

    Args:
      command: and its arguments.
      seconds: after which it and all that it started are ended.
      log: file that its output is appended to.
      environment: variables beside this process's own.
      while_running: called now and then.

    Returns:
      The exit status, negative for a signal; None where the time did not suffice.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + seconds
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _ENDS_WITH_PARENT, *command],
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None and time.monotonic() < until:
                while_running()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(_EVERY, max(until - time.monotonic(), 0)))
            return process.returncode
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """Ends a command and all that it started, kindly first."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen, kind: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, kind)
