import json

import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.jobs.history import History


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
    assert history.last("loss") == 0.25
    assert np.isnan(history.last("accuracy"))
    History(path).add(step=6, loss=1 / 6)
    assert len(path.read_text().splitlines()) == 3


def test_a_history_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").touch()
    history = History(tmp_path / "file/history.jsonl")
    for write in (lambda: history.cut(0), lambda: history.add(step=1)):
        with pytest.raises(UserError, match=r"file.*could not be written"):
            write()
