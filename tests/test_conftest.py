import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

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


def test_compiled_programs_are_kept():
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    program = jax.jit(lambda x: x * 3).lower(1.0).compile()
    assert program(1.0) == 3.0
    assert any(cache.iterdir())
