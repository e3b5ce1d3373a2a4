import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from gxdistill.errors import UserError
from gxdistill.jobs.workdir import Workdir
from tests import small_jobs

_HOLD = """
import sys, time
from pathlib import Path
from gxdistill.jobs.workdir import Workdir
with Workdir(Path(sys.argv[1])).locked("gxdistill testing"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process at work in a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "job")],
        cwd=small_jobs.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_at_once_and_told_by_whom(holder, tmp_path):
    workdir = Workdir(tmp_path / "job")
    began = time.monotonic()
    told = rf"in use by process {holder.pid}, gxdistill testing\."
    with pytest.raises(UserError, match=told), workdir.locked("gxdistill distill"):
        raise AssertionError("it should not have come so far")
    assert time.monotonic() - began < 1
    assert holder.poll() is None
    assert (tmp_path / "job/.lock").read_text() == f"process {holder.pid}, gxdistill testing\n"


def test_the_lock_of_a_killed_process_is_taken_over(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "job/.lock").exists()
    with Workdir(tmp_path / "job").locked("gxdistill distill"):
        text = (tmp_path / "job/.lock").read_text()
    assert text == f"process {os.getpid()}, gxdistill distill\n"


def test_stages_of_one_process_share_it_and_leave_nothing(tmp_path):
    workdir = Workdir(tmp_path / "runs/job")
    with workdir.locked("demo"), workdir.locked("distill"):
        assert [path.name for path in workdir.path.iterdir()] == [".lock"]
    assert not any(tmp_path.iterdir())
    workdir.path.mkdir(parents=True)
    with workdir.locked("demo"):
        (workdir / "result").touch()
    assert [path.name for path in workdir.path.iterdir()] == ["result"]


def test_an_inner_stage_does_not_let_go_for_the_outer_one(tmp_path):
    workdir = Workdir(tmp_path / "job")
    with workdir.locked("demo"):
        with workdir.locked("distill"):
            pass
        assert (workdir / ".lock").exists()


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").touch()
    workdir = Workdir(tmp_path / "file/job")
    with pytest.raises(UserError, match="could not be written"), workdir.locked("distill"):
        raise AssertionError("it should not have come so far")


def test_other_settings_are_named(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.check_same({"seed": 1})
    workdir.write_settings({"seed": 0, "data": {"size": 3, "kind": "a"}})
    workdir.check_same({"data": {"kind": "a", "size": 3}, "seed": 0})
    with pytest.raises(UserError, match=r"data\.size \(was 3, is 4\), seed \(was 0, is None\)"):
        workdir.check_same({"data": {"size": 4, "kind": "a"}})


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    workdir = Workdir(tmp_path / "job")
    with workdir.locked("demo"):
        (workdir / "result").touch()
    assert [path.name for path in workdir.path.iterdir()] == ["result"]
