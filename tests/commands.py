"""Commands as tests run them."""

import pytest

from gxdistill.cli import main


def refusal(*arguments):
    """The line in which a command that must fail says why."""
    with pytest.raises(SystemExit) as stop:
        main.main(list(arguments))
    line = stop.value.code
    assert isinstance(line, str), line  # Python prints it on stderr and exits with status 1.
    assert line.startswith("gxdistill")
    assert "\n" not in line
    return line
