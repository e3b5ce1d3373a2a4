"""The peak of a process's memory. Imports nothing that would count."""

import re
import resource
from pathlib import Path


def peak_rss_mb() -> float:
    """Returns the largest resident memory of this process so far, in MiB.

    Linux hands `ru_maxrss` on from the process that started this one, so the kernel's figure for
    this program alone is taken where there is one.
    """
    try:
        (kib,) = re.findall(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except (OSError, ValueError):
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(int(kib) / 1024, 1)
