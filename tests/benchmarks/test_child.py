"""Commands end in time, with all that they started, and with whom they were started by."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import child
from tests import small_jobs

# Starts a process that would sleep for a minute, tells its number, and waits for it.
_NESTING = """
import subprocess, sys
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(inner.pid, flush=True)
inner.wait()
"""
_PARENT = """
import sys
from pathlib import Path
from benchmarks import child
command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
child.run(command, seconds=60, log=Path(sys.argv[1]))
"""


def _lives(number):
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_until(true, seconds=20):
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    assert true()


def test_output_and_status_are_kept(tmp_path):
    log = tmp_path / "logs/a.log"
    code = "import os, sys; print(os.environ['A']); sys.exit(3)"
    command = [sys.executable, "-c", code]
    assert child.run(command, seconds=30, log=log, environment={"A": "b"}) == 3
    assert log.read_text() == "b\n"


def test_a_command_out_of_time_has_no_status(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    began = time.monotonic()
    assert child.run(command, seconds=0.5, log=tmp_path / "a.log") is None
    assert time.monotonic() - began < 30


def test_a_command_that_is_left_ends_with_all_that_it_started(tmp_path):
    log = tmp_path / "a.log"

    def leave():
        if log.exists() and log.read_text():
            raise KeyboardInterrupt

    command = [sys.executable, "-c", _NESTING]
    with pytest.raises(KeyboardInterrupt):
        child.run(command, seconds=60, log=log, while_running=leave)
    inner = int(log.read_text())
    _wait_until(lambda: not _lives(inner))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's prctl")
def test_a_command_ends_with_its_parent(tmp_path):
    log = tmp_path / "a.log"
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(log)], cwd=small_jobs.ROOT)
    _wait_until(lambda: log.exists() and log.read_text())
    number = int(log.read_text())
    assert _lives(number)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _wait_until(lambda: not _lives(number))
