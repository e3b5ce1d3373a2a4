"""The flags that say what a package may take, for all commands that train on one."""

import argparse
import re
from typing import TYPE_CHECKING

from gxdistill.cli.flags import Flag, non_negative

if TYPE_CHECKING:
    from gxdistill.receive.budget import Budget

_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}


def size(value: str) -> float:
    """Reads a number of bytes, written in MiB or GiB."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(MiB|GiB)", value)
    if match is None:
        raise argparse.ArgumentTypeError(f"{value!r} is no size such as 500MiB or 8GiB")
    return float(match[1]) * _UNITS[match[2]]


FLAGS = (
    Flag(
        "max-memory",
        "SIZE",
        "refuses a package that would take more, as 500MiB or 8GiB, by an estimate (default: three "
        "quarters of the memory)",
        size,
    ),
    Flag(
        "max-seconds",
        "N",
        "refuses one that would train for longer, or decide one image, by an estimate (default: "
        "14400)",
        non_negative,
    ),
)


def of(options: argparse.Namespace) -> "Budget":
    """Returns what the flags allow."""
    from gxdistill.receive.budget import Budget

    return Budget(options.max_memory, options.max_seconds)
