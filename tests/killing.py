"""Writers that are killed: for tests of what is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time

_SERVER = """
import os, signal, sys
{source}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in sys.stdin:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    print(pid, flush=True)
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid):
    """Kills a writer, if it still runs, and waits until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    while is_alive(pid):
        time.sleep(0.001)


@contextlib.contextmanager
def writers(source):
    """Yields a function that runs `work()` of `source` in a process of its own and tells its id.

    Each is forked from one that has imported what `source` imports: 10 ms in place of seconds.
    """
    command = [sys.executable, "-c", _SERVER.format(source=source)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as server:

        def start():
            server.stdin.write("\n")
            return int(server.stdout.readline())

        yield start
        server.stdin.close()
