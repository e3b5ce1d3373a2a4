import re
import time

import pytest

from gxdistill.runtime.console import Progress


def test_progress_tells_rate_and_time_left_of_what_this_start_does():
    said = []
    clock = Progress(said.append, "distilling", first=100, every=0.0)
    time.sleep(0.2)
    clock(110, 200, ", loss 0.5")
    (line,) = said
    rate, left = map(
        float, re.fullmatch(r"distilling: 110/200, (\S+)/s, (\d+) s left, loss 0.5", line).groups()
    )
    assert 10 < rate <= 50  # 10 in 0.2 s and a little, not 110
    assert left == pytest.approx(90 / rate, abs=0.51)


def test_progress_is_quiet_between_but_tells_the_end():
    said = []
    clock = Progress(said.append, "reading", every=60.0)
    for i in range(1, 11):
        clock(i, 10)
    assert len(said) == 1
    assert said[0].startswith("reading: 10/10, ")
    assert said[0].endswith(", 0 s left")
