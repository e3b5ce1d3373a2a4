import platform
import subprocess
import sys

import pytest

from tests import small_jobs

CODE = """
from benchmarks.peak_memory import peak_rss_mb, resident_mb
from gxdistill.runtime import allocator

{call}
before = resident_mb()
for _ in range(2):  # glibc keeps blocks of a size that was freed before.
    held = bytearray(b"x") * (20 << 20)
    del held
print(resident_mb() - before, peak_rss_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
@pytest.mark.parametrize(("call", "kept"), [("", 20), ("allocator.give_back()", 0)])
def test_what_is_freed_is_given_back(call, kept):
    command = [sys.executable, "-c", CODE.format(call=call)]
    done = subprocess.run(command, cwd=small_jobs.ROOT, capture_output=True, text=True, check=True)
    now, most = map(float, done.stdout.split())
    assert now == pytest.approx(kept, abs=1)
    assert most == pytest.approx(20, abs=1)
