import subprocess
import sys

import numpy as np

from tests import small_jobs

CODE = """
import numpy as np
from benchmarks.peak_memory import peak_rss_mb

before = peak_rss_mb()
held = np.ones(2**25)  # 256 MiB
with_array = peak_rss_mb()
del held
print(before, with_array, peak_rss_mb())
"""


def test_the_peak_is_that_of_the_process_alone_and_stays():
    ours = np.ones(2**26)  # 512 MiB, which a process started from here must not count
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=small_jobs.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    before, with_array, after = map(float, done.stdout.split())
    assert ours.nbytes / 2**20 > 2 * before
    assert 250 < with_array - before < 270
    assert abs(after - with_array) < 1


def test_growth_is_what_a_call_takes_at_most():
    code = (
        "from benchmarks.peak_memory import growth_mb\n"
        "before = bytearray(b'x') * (300 << 20); del before\n"
        "print(growth_mb(lambda: len(bytearray(b'x') * (100 << 20))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 99 < float(run.stdout) < 105
