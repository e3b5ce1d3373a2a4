import json
import os
import re
import subprocess
import sys
import time

import pytest

from benchmarks import outer_step
from benchmarks.record import read
from tests import small_jobs

TINY = {"steps": 1, "epochs": 1, "images": 1, "batch": 2, "image_size": 12}


def test_the_median_of_the_calls_after_the_first():
    pauses = iter([0.5, 0.01, 0.4, 0.1])
    processor, clock = outer_step.median_seconds(lambda: time.sleep(next(pauses)), 3)
    assert 0.1 <= clock < 0.3
    assert processor < 0.05  # Sleeping is not work.


def test_a_case_names_what_is_not_as_usual():
    assert outer_step.Setting().case == "outer_step_lenet_10x3"
    setting = outer_step.Setting("convnet", 20, 1, networks=4, width=8, dtype="bfloat16")
    assert setting.case == "outer_step_convnet_20x1_networks4_dtypebfloat16_width8"
    assert re.fullmatch("[a-z0-9_]+", setting.case)


@pytest.mark.usefixtures("git_checkout")
def test_a_step_is_timed_and_recorded_with_its_own_command(tmp_path):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    flags += ["--threads=1", "--repeats=2", "--record", f"--results={tmp_path}"]
    command = ["-m", "benchmarks.outer_step", *flags]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=small_jobs.ROOT,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # compiled in less time
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    recorded = {figure.metric: figure for figure in read(tmp_path)}
    assert figures.pop("case") == next(iter(recorded.values())).case
    assert figures == {metric: figure.value for metric, figure in recorded.items()}
    assert {metric: figure.unit for metric, figure in recorded.items()} == outer_step.UNITS
    assert {figure.command for figure in recorded.values()} == {" ".join(["python", *command])}
    assert all(figure.device.endswith("1 core") for figure in recorded.values())
    # Compiling takes seconds, a step of three images milliseconds, Python and JAX 100 MiB.
    assert 0 < figures["median_cpu_s"] < 0.5 * figures["compile_s"]
    assert 100 < figures["peak_rss_mb"] < 2000
    # 17 GFLOP are between 10 ms and a minute on anything with a processor.
    assert 0.01 < figures["matmul_cpu_s"] < 60


def test_an_impossible_setting_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["outer_step", "--network=lenet", "--width=8"])
    with pytest.raises(SystemExit):
        outer_step.main()
    assert "`option of lenet` is 'width'" in capsys.readouterr().err
