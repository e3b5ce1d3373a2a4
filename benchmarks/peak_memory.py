"""The memory of a process. Imports nothing that would count."""

import ctypes
import re
import resource
from collections.abc import Callable
from pathlib import Path


def peak_rss_mb() -> float:
    """Returns the largest resident memory of this process so far, in MiB.

    Linux hands `ru_maxrss` on from the process that started this one, so the kernel's figure for
    this program alone is taken where there is one.
    """
    kib = _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kib / 1024, 1)


def resident_mb() -> float:
    """Returns the resident memory of this process, in MiB; Linux only."""
    return round(_status("VmRSS") / 1024, 1)


def growth_mb(call: Callable[[], object]) -> float:
    """Returns by how much resident memory grows at most during a call, in MiB; Linux only.

    What the process took before and has given back, as a compiler does, does not count.
    """
    # What was freed but kept for later would hide as much growth.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak.
    before = resident_mb()
    call()
    return round(peak_rss_mb() - before, 1)


def _status(name: str) -> int:
    """Reads a figure of the kernel's in kiB; 0 where it has none."""
    try:
        (kib,) = re.findall(rf"^{name}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except (OSError, ValueError):
        return 0
    return int(kib)
