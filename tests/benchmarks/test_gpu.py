"""The one command for accelerators: what it takes, in which order, and what it writes."""

import argparse
import json
import subprocess
import sys
import time

import pytest

from benchmarks import child, gpu, gpu_context, gpu_run, gpu_steps, gpu_torch, merge, record
from gxdistill.errors import UserError
from gxdistill.plan import targets
from tests import small_jobs


def _given(out, **changes):
    known = {"minutes": 1.0, "data": None, "scale": "small", "only": None, "price": 2.0}
    return argparse.Namespace(**known | {"out": out, "trace": False, "commit": None} | changes)


def _context(out, name="tests", seconds=60.0, **changes):
    (out / "device.json").write_text(json.dumps({"name": "NVIDIA H100", "count": 1}))
    known = {"scale": "small", "data": None, "trace": False, "price": 2.0}
    until = time.monotonic() + seconds
    return gpu_context.Context(name=name, out=out, until=until, **known | changes)


def _run(*flags):
    command = [sys.executable, "-m", "benchmarks.gpu", *flags]
    return subprocess.run(command, cwd=small_jobs.ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("TPU v5 lite", "tpu-v5e-8"),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_a_device_is_described_by_what_it_calls_itself(kind, name):
    assert gpu_steps.target_of(kind) == name
    assert name is None or name in targets.NAMES


def test_both_scales_take_steps_of_the_same_worth():
    full, small = gpu_steps.steps("full"), gpu_steps.steps("small")
    assert [name for name in full if name in small] == list(small)
    order = list(full)
    assert order[:3] == ["device", "tests", "precision"]
    assert order.index("gastric") < order.index("torch_lenet_10x3") < order.index("run_mnist")
    bounded = [name for name in full if not name.startswith("run_")]
    assert max(gpu.bounds(name, "full").most for name in bounded) <= 180
    assert all(gpu.bounds(name, "full").least < gpu.bounds(name, "full").most for name in full)


def test_a_start_skips_what_is_done_and_what_has_no_time(tmp_path, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(gpu, "check_device", lambda _: None)
    monkeypatch.setattr(gpu, "take", lambda name, _, seconds: taken.append((name, seconds)) or "")
    (tmp_path / "done").mkdir()
    (tmp_path / "done/tests").touch()
    gpu.run(_given(tmp_path, scale="full", minutes=0.8))
    said = capsys.readouterr().out
    assert "tests: done before" in said
    assert "gastric: not begun, 42 s are left of 60 that it needs" in said
    assert [name for name, _ in taken][:2] == ["precision", "accelerator_mnist"]
    assert all(seconds <= 42 for _, seconds in taken)
    assert "gastric" not in dict(taken)


def test_without_an_accelerator_one_line_says_how_to_rehearse(tmp_path):
    done = _run(f"--out={tmp_path}", "--minutes=1", "--commit=0123456789ab")
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks.gpu: JAX sees no GPU or TPU here. A rehearsal")
    assert "--scale=small" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("git_checkout")
def test_a_rehearsal_is_told_from_a_measurement_by_the_names_of_its_cases(tmp_path):
    done = _run(f"--out={tmp_path}", "--minutes=1", "--scale=small", "--only", "device")
    assert done.returncode == 0, done.stderr
    figures = record.read(tmp_path / "results")
    assert {figure.case for figure in figures} == {"rehearsal_gpu_device"}
    assert figures[0].device.startswith("CPU: ")
    assert "--only device --scale=small" in figures[0].command


def test_a_wheel_that_is_missing_is_named_with_the_way_to_carry_it(monkeypatch):
    gpu.check_wheels()
    monkeypatch.setitem(gpu._WHEELS, "no_such_module", "no-such-wheel")
    with pytest.raises(UserError, match=r"needs no-such-wheel.*pip download --no-deps no-such-wh"):
        gpu.check_wheels()


def test_a_folder_without_git_lists_what_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    gpu.check_sources(tmp_path)
    gpu.check_sources(tmp_path)
    monkeypatch.setattr(merge, "list_sources", lambda: {"pyproject.toml": "0" * 40})
    with pytest.raises(UserError, match="figures of other sources"):
        gpu.check_sources(tmp_path)


def test_the_folder_of_another_device_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "device.json"
    path.write_text(json.dumps({"name": "NVIDIA H100", "platform": "gpu"}))

    def take(*_):
        path.write_text(json.dumps({"name": "NVIDIA H200", "platform": "gpu"}))
        return "done"

    monkeypatch.setattr(gpu, "take", take)
    with pytest.raises(UserError, match=r"figures of NVIDIA H100, and this is NVIDIA H200"):
        gpu.check_device(_given(tmp_path, scale="full"))
    assert json.loads(path.read_text())["name"] == "NVIDIA H100"


def test_tests_are_counted_whoever_prints_them():
    alone = (
        "collected 9 items / 3 deselected / 6 selected\n\n"
        "tests/a/test_b.py::test_c PASSED        [ 16%]\n"
        "tests/a/test_b.py::test_d[x 1] FAILED   [ 33%]\n"
        "FAILED tests/a/test_b.py::test_d[x 1] - assert 0\n"
    )
    assert gpu_steps.outcomes(alone) == {
        "tests/a/test_b.py::test_c": "PASSED",
        "tests/a/test_b.py::test_d[x 1]": "FAILED",
    }
    assert gpu_steps.selected(alone) == 6
    several = (
        "8 workers [6 items]\n"
        "[gw1] [ 16%] PASSED tests/a/test_b.py::test_c \n"
        "[gw0] [ 33%] SKIPPED tests/a/test_b.py::test_d[x 1] \n"
    )
    assert set(gpu_steps.outcomes(several).values()) == {"PASSED", "SKIPPED"}
    assert gpu_steps.selected(several) == 6


def test_sides_are_summed_up_with_ours_over_theirs():
    rounds = {
        "ours": [{"median_s": 0.1, "device_peak_mb": 10}, {"median_s": 0.3, "device_peak_mb": 12}],
        "eager": [{"median_s": 0.8}],
        "compiled": [{"median_s": 0.4, "device_peak_mb": 30}],
    }
    rows = {row.metric: row.value for row in gpu_torch.summary(rounds)}
    assert rows == pytest.approx(
        {
            "step_s": 0.2,
            "peak_mb": 12,
            "torch_eager_step_s": 0.8,
            "eager_ratio": 0.25,
            "torch_compiled_step_s": 0.4,
            "torch_compiled_peak_mb": 30,
            "compiled_ratio": 0.5,
        }
    )
    assert [side.name for side in gpu_torch.sides("gpu")][-1] == "graphs"
    assert gpu_torch.flags_of("convnet128_40x1_window20", "full")["window"] == 20
    assert "width" not in gpu_torch.flags_of("lenet_10x3", "small")


def test_figures_are_read_whatever_a_driver_says_after_them():
    assert gpu_torch.last_figures('W0 old\n{"a": 1}\n{"a": 2}\nI0 end\n') == {"a": 2}
    assert gpu_torch.last_figures("W0 no GPU\n") is None


@pytest.mark.usefixtures("git_checkout")
def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    statuses = iter([0, None, 0, 0])
    taken = []

    def run(command, *, log, while_running, **_):
        stage = command[3]
        taken.append(stage)
        while_running()
        log.parent.mkdir(exist_ok=True)
        log.write_text(f"{stage}: half\n")
        status = next(statuses)
        if stage == "evaluate":
            networks = {"mean": 0.5, "std": 0.1, "n": 2}
            accuracies = dict.fromkeys(("accuracy", "balanced_patch_accuracy"), networks)
            evaluation = {
                "name": "demo_smoke",
                "contenders": {"distilled": accuracies},
                "shares": {},
            }
            path = tmp_path / "runs/demo_smoke/evaluation.json"
            path.write_text(json.dumps(evaluation | {"package_bytes": 7}))
        return status

    monkeypatch.setattr(child, "run", run)
    with pytest.raises(gpu_context.UnfinishedError, match="train: train: half"):
        gpu_run.advance(_context(tmp_path), "demo:smoke")
    gpu_run.advance(_context(tmp_path), "demo:smoke")
    assert taken == ["distill", "train", "train", "evaluate"]
    figures = {figure.metric: figure for figure in record.read(tmp_path / "results")}
    assert figures["accuracy"].case == "rehearsal_demo_smoke"
    assert figures["accuracy"].device == "NVIDIA H100"
    assert figures["package_bytes"].value == 7


def test_a_run_of_digits_says_what_it_needs(tmp_path):
    with pytest.raises(gpu_context.SkippedError, match="--data=FOLDER"):
        gpu_run.advance(_context(tmp_path), "mnist:smoke")


def test_the_seconds_of_all_pieces_are_added_up(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first = gpu_run.Spent(tmp_path / "spent.json")
    now = 107.0
    first.write()
    now = 500.0  # Killed meanwhile, and started again.
    second = gpu_run.Spent(tmp_path / "spent.json")
    now = 503.0
    assert second.seconds == pytest.approx(10)


@pytest.mark.slow
def test_a_rehearsal_compares_gradients_with_the_cpus(tmp_path):
    done = _run(f"--out={tmp_path}", "--minutes=4", "--scale=small", "--only", "precision")
    assert done.returncode == 0, done.stderr
    figures = {figure.metric: figure.value for figure in record.read(tmp_path / "results")}
    assert 0 < figures["error_float32"] < 1e-5 < figures["error_bfloat16"]
    assert figures["outside_tolerance"] == 0
