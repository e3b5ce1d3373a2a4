"""What a program writes to stderr itself, apart from what JAX writes there at its start."""

import functools
import re
import subprocess
import sys
from collections import Counter


def without_jax_start(stderr: str) -> str:
    """Drops the lines that a bare start of JAX writes as well, each as often as it does.

    A CUDA plugin on a machine without a GPU complains at each start, with a traceback. Where JAX
    starts silently nothing is dropped.
    """
    if not stderr:
        return stderr
    dropped, kept = Counter(_jax_start()), []
    for line in stderr.splitlines(keepends=True):
        if dropped[_pattern(line)]:
            dropped[_pattern(line)] -= 1
        else:
            kept.append(line)
    return "".join(kept)


@functools.cache
def _jax_start() -> tuple[str, ...]:
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(map(_pattern, done.stderr.splitlines()))


def _pattern(line: str) -> str:
    """A line without its times and process ids, nor the logger that a program may have named."""
    return re.sub(r"\d+", "0", re.sub(r"^[A-Z]+:jax[\w.]*:", "", line.rstrip()))
