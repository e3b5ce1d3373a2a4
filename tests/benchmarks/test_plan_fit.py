import subprocess
import sys

import pytest

from benchmarks import plan_fit, record
from gxdistill.plan import targets
from tests import small_jobs


def _record(folder, case, **figures):
    for metric, value in figures.items():
        record.record(
            case, metric, value, unit="s", command="c", cpu_s=0.0, wall_s=0.0, folder=folder
        )


@pytest.mark.usefixtures("git_checkout")
def test_rows_of_before_the_roofline_tell_their_floors(tmp_path):
    _record(tmp_path, "accelerator_demo_h100", median_s=0.2, utilisation=0.25, planned_s=0.1)
    _record(tmp_path, "accelerator_mnist_cpu", median_s=0.2, utilisation=0.25, planned_s=0.1)
    (row,) = plan_fit.rows_of(record.read(tmp_path), "h100")
    assert row.floors == pytest.approx({"products": 0.05, "memory": 0.1})
    assert row.binding == "memory"
    assert row.off({}) == pytest.approx(2)
    assert row.off({"memory": 0.5}) == pytest.approx(1)


def test_no_other_share_brings_the_worst_row_nearer():
    rows = [
        plan_fit.Row(f"r{i}", measured, {"products": 0.01, "memory": floor})
        for i, (measured, floor) in enumerate([(1.0, 0.2), (0.5, 0.3), (0.8, 0.5)])
    ]
    fitted = plan_fit.fit(rows)
    assert fitted.keys() == {"memory"}
    worst = max(row.off(fitted) for row in rows)
    shares = [0.01 * percent for percent in range(1, 200)]
    assert worst <= min(max(row.off({"memory": share}) for row in rows) for share in shares) + 1e-3


def test_a_plan_that_is_near_enough_is_not_corrected():
    assert plan_fit.fit([plan_fit.Row("a", 1.0, {"products": 0.7, "memory": 0.1})]) == {}


def test_what_a_description_corrects_brings_its_worst_row_nearer():
    rows = plan_fit.rows_of(record.read(), "cpu")
    written = targets.load("cpu").efficiency
    assert max(row.off(written) for row in rows) < max(row.off({}) for row in rows)


def test_what_was_not_measured_is_not_fitted(tmp_path):
    command = [sys.executable, "-m", "benchmarks.plan_fit", "--target=a100"]
    done = subprocess.run(
        [*command, f"--results={tmp_path}"],
        cwd=small_jobs.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "benchmarks.plan_fit: no step was measured on a100 yet.\n"
