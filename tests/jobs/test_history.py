import json
import re
import time

import pytest

from gxdistill.errors import UserError
from gxdistill.jobs.history import History
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


def test_a_resumed_history_drops_what_is_repeated_and_half_a_line(tmp_path):
    path = tmp_path / "new/history.jsonl"
    history = History(path)
    history.cut(0)
    for step in (2, 4, 6):
        history.add(step=step, loss=1 / step)
    history.add(step=6, accuracy=0.5)
    whole = path.read_text()
    with path.open("a") as file:
        file.write('{"step": 8, "lo')  # what a kill leaves
    history.cut(6)
    assert path.read_text() == whole
    history.cut(4)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 2, "loss": 0.5},
        {"step": 4, "loss": 0.25},
    ]
    History(path).add(step=6, loss=1 / 6)
    assert len(path.read_text().splitlines()) == 3


def test_a_history_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").touch()
    history = History(tmp_path / "file/history.jsonl")
    for write in (lambda: history.cut(0), lambda: history.add(step=1)):
        with pytest.raises(UserError, match=r"file.*could not be written"):
            write()
