import json
import os
import subprocess
import sys
import threading
import time

import pytest

from benchmarks import main_job
from benchmarks.record import Measured, read
from tests import small_jobs

CORES = os.sched_getaffinity(0)
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


@pytest.fixture
def evaluation(run):
    return json.loads((run / "evaluation.json").read_text())


def test_the_figures_are_those_of_the_evaluation(evaluation):
    cases = main_job.figures(evaluation, 12.34)
    rows = {metric: rest for metric, *rest in cases["demo_smoke"]}
    contenders = evaluation["contenders"]
    ours, ceiling = contenders["distilled"], contenders["all_patches"]
    for name in ("hm", "auc", "sen", "spe"):
        figure = ours["images"][name]
        assert rows[name] == [figure["mean"], figure["std"], figure["n"], "1"]
    accuracy = ours["balanced_patch_accuracy"]
    assert rows["balanced_patch_accuracy"] == [
        accuracy["mean"],
        accuracy["std"],
        accuracy["n"],
        "1",
    ]
    assert rows["balanced_all_patches"][0] == ceiling["balanced_patch_accuracy"]["mean"]
    above_chance = ceiling["images"]["auc"]["mean"] > 0.5
    assert ("auc_share" in rows) == above_chance
    if above_chance:
        ratio = ours["images"]["auc"]["mean"] / ceiling["images"]["auc"]["mean"]
        assert rows["auc_share"][0] == ratio
    assert rows["hm_at_package_tau"][0] == ours["at_package_tau"]["hm"]["mean"]
    assert rows["package_bytes"] == [evaluation["package_bytes"], None, 1, "B"]
    assert rows["wall_s"] == [12.3, None, 1, "s"]
    for name in ("random_real", "class_means", "kmeans_centres"):
        assert rows[f"auc_{name}"][0] == contenders[name]["images"]["auc"]["mean"]


def test_ordinary_training_has_a_case_of_its_own(evaluation):
    cases = main_job.figures(evaluation, 1.0)
    assert set(cases) == {"demo_smoke", "demo_smoke_shuffled"}
    ours = evaluation["contenders"]["shuffled"]["accuracy"]
    expected = Measured("accuracy", ours["mean"], ours["std"], ours["n"])
    assert cases["demo_smoke_shuffled"] == [expected]


def test_an_undefined_figure_is_left_out(evaluation):
    evaluation["contenders"]["distilled"]["images"]["hm"] = None
    evaluation["shares"] = {"balanced_patch_accuracy": 1.0, "hm": None}
    for name in ("class_means", "distilled"):
        evaluation["contenders"][name].pop("at_package_tau", None)
    del evaluation["contenders"]["class_means"]["images"]
    metrics = [metric for metric, *_ in main_job.figures(evaluation, 1.0)["demo_smoke"]]
    assert len(set(metrics)) == len(metrics)
    gone = {"hm", "hm_share", "auc_share", "hm_at_package_tau", "hm_class_means", "auc_class_means"}
    assert not gone & set(metrics)
    assert {"auc", "balanced_class_means", "hm_random_real"} <= set(metrics)


def test_figures_of_several_seeds_are_averaged_where_all_have_them():
    first = [Measured("hm", 0.5, 0.1, 5), Measured("wall_s", 10.0, unit="s")]
    runs = [first, [Measured("hm", 0.7, 0.2, 5)]]
    ((name, value, std, count, unit),) = main_job.over_seeds(runs)
    assert (name, count, unit) == ("hm", 2, "1")
    assert value == pytest.approx(0.6)
    assert std == pytest.approx(0.02**0.5)
    assert main_job.over_seeds([first]) == first


@two_cores
def test_jobs_beside_each_other_have_cores_of_their_own():
    both_begun = threading.Barrier(2, timeout=60)

    def cores_of_a_command():
        both_begun.wait()
        command = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
        return set(map(int, subprocess.check_output(command, text=True).split()))

    first, second, third, fourth = main_job.beside([cores_of_a_command] * 4, at_once=2)
    assert first.isdisjoint(second)
    assert third.isdisjoint(fourth)
    assert len(first) == len(second) == len(CORES) // 2
    assert os.sched_getaffinity(0) == CORES


@pytest.mark.parametrize("at_once", [1, pytest.param(2, marks=two_cores)])
def test_results_come_in_the_order_of_the_jobs_and_a_failure_ends_them(at_once):
    assert main_job.beside([lambda n=n: n**2 for n in range(5)], at_once) == [0, 1, 4, 9, 16]
    done = []
    wait = [lambda: time.sleep(1)] * 2
    jobs = [lambda: done.append(0), lambda: 1 / 0, *wait, lambda: done.append(1)]
    with pytest.raises(ZeroDivisionError):
        main_job.beside(jobs, at_once)
    assert done == [0]


def test_cores_are_parted_evenly():
    assert main_job.core_parts({4, 1, 2, 7, 5}, 2) == [{1, 2}, {4, 5}]
    assert main_job.core_parts({0, 3}, 1) == [{0, 3}]


@pytest.mark.slow
def test_the_job_is_run_and_recorded_with_its_own_command(run, tmp_path):
    flags = ["--config=configs/demo.py:smoke", f"--workdir={tmp_path / 'job'}"]
    command = ["-m", "benchmarks.main_job", *flags, "--record", f"--results={tmp_path / 'results'}"]
    done = subprocess.run(
        [sys.executable, *command], cwd=small_jobs.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    recorded = read(tmp_path / "results")
    figures = {f"{figure.case} {figure.metric}": figure for figure in recorded}
    assert {figure.case for figure in recorded} == {"demo_smoke", "demo_smoke_shuffled"}
    assert {figure.command for figure in figures.values()} == {" ".join(["python", *command])}
    assert figures["demo_smoke wall_s"].value == pytest.approx(
        figures["demo_smoke wall_s"].wall_s, abs=0.1
    )
    assert figures["demo_smoke wall_s"].cpu_s > 1
    for line in done.stdout.splitlines()[-len(figures) :]:  # below the table of the evaluation
        metric, _, value = line.partition(": ")
        assert float(value.split()[0]) == pytest.approx(figures.pop(metric).value, rel=1e-3)
    assert figures == {}
    # Commands of their own processes leave what the one process of the demo leaves.
    assert (tmp_path / "job/package.gxd").read_bytes() == (run / "package.gxd").read_bytes()
    evaluations = [(path / "evaluation.json").read_text() for path in (run, tmp_path / "job")]
    assert evaluations[0] == evaluations[1]

    again = subprocess.run(
        [sys.executable, *command], cwd=small_jobs.ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "exists: a timed run starts afresh" in again.stderr


def test_another_site_has_figures_of_its_own(evaluation):
    assert not [
        name for name, *_ in main_job.figures(evaluation, 1.0)["demo_smoke"] if "ext" in name
    ]
    figure = {"mean": 0.6, "std": 0.1, "n": 2}
    there = {"images": {"auc": figure, "hm": None}, "joint": {"hm": {**figure, "mean": 0.5}}}
    evaluation["contenders"]["distilled"]["external"] = there
    whole = {"external": {"images": {"auc": {**figure, "mean": 0.75}}}}
    evaluation["contenders"]["all_patches"] |= whole
    evaluation["contenders"]["random_real"] |= {"external": {"images": {"auc": figure}}}
    rows = {name: rest for name, *rest in main_job.figures(evaluation, 1.0)["demo_smoke"]}
    assert rows["external_auc"] == [0.6, 0.1, 2, "1"]
    assert rows["external_hm_unlabelled"][0] == 0.5
    assert rows["external_auc_ceiling"][0] == 0.75
    assert rows["external_auc_random_real"] == [0.6, 0.1, 2, "1"]
    assert rows["external_auc_share"][0] == pytest.approx(0.8)
    assert "external_hm" not in rows
