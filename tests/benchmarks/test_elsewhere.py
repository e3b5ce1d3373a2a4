import json
import subprocess
import sys

import pytest

from benchmarks import elsewhere
from benchmarks.record import Measured, read
from tests import small_jobs


def test_the_case_is_named_by_the_network(run):
    evaluation = json.loads((run / "evaluation.json").read_text())
    trained = evaluation["contenders"]["distilled"]
    trained["accuracy"] = {"mean": 0.3, "std": 0.1, "n": 2}
    trained["networks"]["network"] = {"name": "lenet", "options": {}}
    assert elsewhere.figures(evaluation) == ("demo_smoke_lenet", Measured("accuracy", 0.3, 0.1, 2))


@pytest.mark.slow
def test_other_networks_are_trained_evaluated_and_recorded(run, tmp_path):
    flags = ["--config=configs/demo.py:smoke", f"--package={run / 'package.gxd'}"]
    flags += ["--networks=lenet", "--seeds=2", "--record", f"--results={tmp_path}"]
    command = [sys.executable, "-m", "benchmarks.elsewhere", *flags]
    done = subprocess.run(command, cwd=small_jobs.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (figure,) = read(tmp_path)
    assert (figure.case, figure.metric, figure.n) == ("demo_smoke_lenet", "accuracy", 2)
    assert 0 <= figure.value <= 1
    last = done.stdout.splitlines()[-1]
    assert last == f"demo_smoke_lenet accuracy: {figure.value:.4g} (n = 2)"
