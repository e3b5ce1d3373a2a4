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
    trained["images"]["auc"] = {"mean": 0.7, "std": 0.2, "n": 3}
    trained["images"]["hm"] = None
    case, (accuracy, balanced, auc) = elsewhere.figures(evaluation)
    assert case == "demo_smoke_lenet"
    assert accuracy == Measured("accuracy", 0.3, 0.1, 2)
    assert balanced.metric == "balanced_patch_accuracy"
    assert balanced.value == trained["balanced_patch_accuracy"]["mean"]
    assert auc == Measured("auc", 0.7, 0.2, 3)


@pytest.mark.slow
def test_other_networks_are_trained_evaluated_and_recorded(run, tmp_path):
    flags = ["--config=configs/demo.py:smoke", f"--package={run / 'package.gxd'}"]
    flags += ["--networks=lenet", "--seeds=2", "--record", f"--results={tmp_path}"]
    command = [sys.executable, "-m", "benchmarks.elsewhere", *flags]
    done = subprocess.run(command, cwd=small_jobs.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figure, *others = read(tmp_path)
    assert (figure.case, figure.metric, figure.n) == ("demo_smoke_lenet", "accuracy", 2)
    assert 0 <= figure.value <= 1
    assert {other.metric for other in others} >= {"balanced_patch_accuracy"}
    assert f"demo_smoke_lenet accuracy: {figure.value:.4g} (n = 2)" in done.stdout.splitlines()
