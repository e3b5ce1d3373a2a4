"""Commands as tests run them."""

import contextlib
import os

import pytest

from gxdistill.cli import main


@contextlib.contextmanager
def on_one_core(is_one=True):
    """Has the processes that are started inside run on one core; or on all, as without it."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)} if is_one else usable)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def refusal(*arguments):
    """The line in which a command that must fail says why."""
    with pytest.raises(SystemExit) as stop:
        main.main(list(arguments))
    line = stop.value.code
    assert isinstance(line, str), line  # Python prints it on stderr and exits with status 1.
    assert line.startswith("gxdistill")
    assert "\n" not in line
    return line
