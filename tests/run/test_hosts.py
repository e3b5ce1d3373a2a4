"""Two processes of four simulated devices each, over loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from gxdistill import cli, package
from gxdistill.errors import UserError
from gxdistill.run import hosts

ROOT = Path(__file__).parents[2]
_CONFIG = (
    f"--config={ROOT}/configs/demo.py:smoke",
    "--config.distill.init=random",
    "--config.distill.networks=2",
)


def _started(workdir, *, processes=2, steps=8):
    """Starts the job on loopback, each process with a log beside the working folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from gxdistill.cli import main; main()", "distill", *_CONFIG]
    command += [f"--workdir={workdir}", f"--config.distill.outer_steps={steps}"]
    command += [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    return [
        subprocess.Popen(
            [*command, f"--process={number}"],
            cwd=ROOT,
            env=environment,
            stdout=(workdir.parent / f"log{number}").open("w"),
            stderr=subprocess.STDOUT,
        )
        for number in range(processes)
    ]


def _logs(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("log*")))


def _learned(workdir):
    return jax.tree.leaves(package.load(workdir / "package.gxd").distilled)


def _alone(workdir, *, steps=8):
    cli.main(["distill", *_CONFIG, f"--workdir={workdir}", f"--config.distill.outer_steps={steps}"])
    return _learned(workdir)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    for process in _started(tmp_path / "two"):
        assert process.wait() == 0, _logs(tmp_path)
    for one, two in zip(_alone(tmp_path / "one"), _learned(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
    assert not [name for name in os.listdir(tmp_path) if name.startswith("tmp")]


@pytest.mark.slow
def test_where_a_process_is_killed_the_other_says_so_and_one_process_goes_on(tmp_path):
    workdir = tmp_path / "two"
    first, second = _started(workdir)
    checkpoints = workdir / "checkpoints"
    while not list(checkpoints.glob("step_*")):
        assert first.poll() is None, _logs(tmp_path)
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert first.wait() == 1
    assert time.monotonic() - began < 60
    assert "another one was lost" in _logs(tmp_path)
    assert "the run resumes at the last checkpoint" in _logs(tmp_path)
    for one, resumed in zip(_alone(tmp_path / "one"), _alone(workdir), strict=True):
        np.testing.assert_allclose(resumed, one, atol=1e-6)


def test_a_place_that_is_half_told_is_refused(tmp_path):
    place = hosts.Place("127.0.0.1:1", processes=2)
    with pytest.raises(UserError, match=r"--process=I"), hosts.together(place, tmp_path):
        pass


def test_one_process_is_left_as_it_is(tmp_path):
    with hosts.together(hosts.Place(), tmp_path) as workdir:
        assert workdir == tmp_path
        assert hosts.leads()
    tree = {"a": np.arange(3)}
    assert hosts.from_first(tree) is tree
