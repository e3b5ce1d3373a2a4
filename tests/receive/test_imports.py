"""The receiving side is light: what only senders need is not loaded with it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SENDERS = (
    *("gxdistill.cli", "gxdistill.jobs", "gxdistill.plan", "gxdistill.tasks", "ml_collections"),
    *("gxdistill.data.phantom", "gxdistill.data.prepared"),
)


@pytest.mark.parametrize(
    ("module", "apart"),
    [
        # Who only trains reads no image files.
        ("gxdistill.receive.networks", (*SENDERS, "gxdistill.data.files")),
        ("gxdistill.receive.predicting", SENDERS),
    ],
)
def test_nothing_of_the_senders_is_loaded(module, apart):
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert module in loaded
    assert [name for name in loaded if f"{name}.".startswith(tuple(f"{a}." for a in apart))] == []
