import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
_TESTS = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no Chromium here")
"""


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_a_skip_fails_the_run_in_ci_alone(tmp_path, ci, status):
    conftest = Path(__file__).with_name("conftest.py")
    (tmp_path / "conftest.py").write_text(conftest.read_text())
    (tmp_path / "test_it.py").write_text(_TESTS)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", tmp_path, tmp_path],
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == status, run.stdout
    assert "1 passed, 1 skipped" in run.stdout
    listed = "test_it.py::test_skips: Skipped: no Chromium here" in run.stdout
    assert listed == bool(ci)


@pytest.mark.parametrize(
    ("body", "said", "passed"),
    [
        # A lost worker ends the run: "after" is not run, and the other worker does not wait for it.
        ("os.abort()", "crashed and worker restarting disabled", 1),
        ("subprocess.run(['sleep', '100'])", "Failed: Timeout (>2.0s)", 2),
        # A deadlock in native code, which keeps the interpreter's lock and hears no signal.
        ("[LOCK(MUTEX) for _ in range(2)]", "crashed and worker restarting disabled", 1),
    ],
    ids=["dies", "waits", "deadlock"],
)
def test_a_test_that_dies_or_hangs_ends_the_run(tmp_path, body, said, passed):
    (tmp_path / "test_bad.py").write_text(
        "import ctypes, os, subprocess\n"
        "LOCK, MUTEX = ctypes.PyDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)\n"
        f"def test_bad(): {body}\ndef test_after(): pass"
    )
    (tmp_path / "test_good.py").write_text("def test_good(): pass")
    limits = ["--timeout=2", "--override-ini=faulthandler_timeout=4"]
    config = [f"--config-file={ROOT}/pyproject.toml", f"--rootdir={tmp_path}"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *config, *limits, "-n2", "--dist=loadfile", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert said in run.stdout
    assert f" 1 failed, {passed} passed" in run.stdout


def test_compiled_programs_are_kept():
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    program = jax.jit(lambda x: x * 3).lower(1.0).compile()
    assert program(1.0) == 3.0
    assert any(cache.iterdir())
