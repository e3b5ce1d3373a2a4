"""What a package may take of the receiver's machine, checked before anything of it is run."""

import os
from pathlib import Path
from typing import NamedTuple

import jax

from gxdistill import models
from gxdistill.errors import UserError
from gxdistill.models.cached import cached_network
from gxdistill.package import About, Manifest, cost
from gxdistill.package.cost import Cost
from gxdistill.runtime import environment, platform

_SHARE = 0.75  # Of the memory that the machine has.
_SECONDS = 4 * 3600.0
# Floating-point operations a second: of a CPU's core, and of an accelerator. Low, so that what is
# estimated is seldom too short.
_OF_CORE, _OF_ACCELERATOR = 5e9, 1e12
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Budget(NamedTuple):
    """The most that a package may take.

    Attributes:
      memory: bytes at once; None is three quarters of what the device has.
      seconds: for training, and for one whole image; None is four hours.
    """

    memory: float | None = None
    seconds: float | None = None


DEFAULT = Budget()


def check(what: str, cost: Cost, budget: Budget) -> None:
    """Refuses what would take more than the budget.

    Args:
      what: is to be done, as a subject: "training 5 networks on FILE".
      cost: of it.
      budget: the most that it may take.

    Raises:
      UserError: naming the estimate, the limit, and the flag that raises it.
    """
    memory = default_memory() if budget.memory is None else budget.memory
    seconds = _SECONDS if budget.seconds is None else budget.seconds
    if cost.memory > memory:
        raise UserError(
            f"{what} would take an estimated {as_size(cost.memory)} of memory, over the limit of "
            f"{as_size(memory)}. If you trust the sender, raise it by --max-memory; else ask for a "
            f"smaller package."
        )
    if estimated_seconds(cost) > seconds:
        raise UserError(
            f"{what} would take an estimated {estimated_seconds(cost):.3g} s, over the limit of "
            f"{seconds:.6g} s. If you trust the sender, raise it by --max-seconds; else ask for a "
            f"smaller package."
        )


def outlook(about: About) -> list[str]:
    """Says what a file would take of this machine, and which flags admit what is over the limits.

    Args:
      about: the manifest of a package or of essential weights.

    Returns:
      A line each of training and of deciding an image; none where the network is not of the zoo.
    """
    if about.network.name not in models.NAMES:
        return []
    options, classes = about.network.options, len(about.class_names)
    network = cached_network(about.network.name, options, about.patch.shape, classes)
    how = about.decision
    count = 1 if about.init.is_known or how is None else how.networks
    costs = {}
    if isinstance(about, Manifest):
        costs[f"training {count} network(s)"] = cost.of_training(about, network, count)
    if how is not None:
        costs["deciding one image"] = cost.of_deciding(about, network, count)
    return [_line(what, of) for what, of in costs.items()]


def _line(what: str, of: Cost) -> str:
    over = [
        flag
        for flag, taken, limit in (
            ("--max-memory", of.memory, default_memory()),
            ("--max-seconds", estimated_seconds(of), _SECONDS),
        )
        if taken > limit
    ]
    refused = f"; REFUSED, but with a higher {' and '.join(over)}" if over else ""
    size, seconds = as_size(of.memory), estimated_seconds(of)
    return f"{what}: an estimated {size} and about {seconds:.3g} s here{refused}"


def estimated_seconds(cost: Cost) -> float:
    """Estimates how long something takes on this process's devices; rather too long than short."""
    if platform.platform() == "cpu":
        cores = min(environment.threads(), environment.usable_cores())
        return cost.operations / (_OF_CORE * cores)
    return cost.operations / _OF_ACCELERATOR


def default_memory() -> float:
    """Counts the bytes that a package may take where nobody says: a share of the device's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return _SHARE * min(stats.get("bytes_limit", _of_machine()), _of_machine())


def _of_machine() -> float:
    sizes = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for path in map(Path, _LIMITS):  # Of a container, which may have less than its machine.
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            sizes.append(float(text))
    return min(sizes)


def as_size(size: float) -> str:
    """Writes a number of bytes for people."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1024:.3g} KiB"
