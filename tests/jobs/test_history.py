import json
import sys

import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.jobs.events import EventFolder
from gxdistill.jobs.history import History
from tests import small_jobs


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


def _scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_reads_each_step_once_after_a_resumption(tmp_path):
    path, events = tmp_path / "history.jsonl", tmp_path / "events"
    first = History(path, EventFolder(events))
    first.cut(0)
    for step in (2, 4, 6):
        first.add(step=step, loss=1 / step)
    first.add(step=6, accuracy=0.5)
    assert [step for step, _ in _scalars(events)["loss"]] == [2, 4, 6]
    resumed = History(path, EventFolder(events))
    resumed.cut(4)
    resumed.add(step=6, loss=0.125)
    resumed.add(step=6, accuracy=0.75)
    assert _scalars(events) == {
        "loss": [(2, 0.5), (4, 0.25), (6, 0.125)],
        "accuracy": [(6, 0.75)],
    }
    assert len(list(events.iterdir())) == 1


def test_a_run_writes_its_history_as_events_and_is_the_same_run_without(tmp_path):
    job = small_jobs.make(tmp_path / "run")
    with job.config.unlocked():
        job.config.log = "tensorboard"
    assert job.identity("distill") == small_jobs.make(tmp_path / "run").identity("distill")
    job.history.cut(0)
    job.history.add(step=1, loss=2.0)
    assert _scalars(tmp_path / "run/events") == {"loss": [(1, 2.0)]}
    assert job.workdir.history.last("loss") == 2.0


def test_a_missing_writer_is_told_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(UserError, match=r"tensorboardX is not installed.*--config\.log=none"):
        History(tmp_path / "h.jsonl", EventFolder(tmp_path / "events")).cut(0)
