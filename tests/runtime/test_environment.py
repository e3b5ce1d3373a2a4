import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from gxdistill.package import seeds
from gxdistill.runtime import environment
from tests import commands

ROOT = Path(__file__).parents[2]
# Draws and sums as a command does, and says what came of it.
CODE = """
from gxdistill.runtime import environment
environment.pin()
import jax, jax.numpy as jnp
from gxdistill.package import seeds
draw = jax.random.normal(seeds.key(3, seeds.Use.KNOWN), (7,))
print((draw + jnp.arange(7)).dtype, draw.tobytes().hex())
fields = jnp.sin(jnp.arange(2.0**20).reshape(64, 128, 128))
print(hash((jax.nn.softmax(fields, axis=0) @ fields[0]).tobytes()))
"""


def _drawn(on_one_core=False, **variables):
    inherited = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    with commands.on_one_core(on_one_core):
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            cwd=ROOT,
            env=inherited | {"PYTHONHASHSEED": "0"} | variables,
            capture_output=True,
            text=True,
            check=True,
        )
    return done.stdout


def test_the_number_of_cores_changes_nothing_but_that_of_threads_does():
    plain, one = _drawn(), _drawn(on_one_core=True)
    assert one == plain
    assert _drawn(NPROC="5") == plain
    alone = _drawn(PJRT_NPROC="1")  # Whoever wants another number says so.
    assert alone.split()[1] == plain.split()[1]
    assert alone.split()[2] != plain.split()[2]


def test_no_variable_changes_what_a_command_draws():
    plain = _drawn()
    assert plain.startswith("float32 ")
    others = {
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_RANDOM_SEED_OFFSET": "5",
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DISABLE_JIT": "1",
        "JAX_DEBUG_NANS": "1",
        "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    }
    assert _drawn(**others) == plain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_threefry_partitionable", False),
        ("jax_default_prng_impl", "rbg"),
        ("jax_enable_x64", True),
        ("jax_random_seed_offset", 5),
    ],
)
def test_a_function_that_is_pinned_draws_alike_and_leaves_the_settings(name, value):
    @environment.pinned()
    def draw():
        return np.asarray(jax.random.normal(seeds.key(3, seeds.Use.KNOWN), (7,)))

    expected, before = draw(), getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        drawn = draw()
        assert getattr(jax.config, name) == value
    finally:
        jax.config.update(name, before)
    np.testing.assert_array_equal(drawn, expected)
    assert drawn.dtype == expected.dtype


def test_a_device_that_is_not_there_is_told_in_one_line(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gxdistill", "distill", "--config=demo:smoke"),
            f"--workdir={tmp_path}/run",
        ],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "JAX_PLATFORMS=cuda names a device that cannot be used here" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_the_output_cannot_write_is_shown_as_escapes():
    code = (
        "from gxdistill.runtime import console; console.escape_what_cannot_be_written(); "
        "print('ok\\udcfe \\u80c3'); console.log('\\u80c3')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"ok\\udcfe \\u80c3\n"
    assert done.stderr == b"\\u80c3\n"
