import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from benchmarks import profile_step
from benchmarks.profile_step import Spent
from benchmarks.record import read
from gxdistill.pytrees import Network
from tests import small_jobs

_INNER = "jit(update)/transpose(jvp())/while/body/closed_call/checkpoint/"


def test_an_operation_is_not_charged_with_what_it_called():
    events = [
        ("loop", 0.0, 10.0),
        ("body", 1.0, 4.0),
        ("product", 2.0, 3.0),
        ("body", 5.0, 4.0),
        ("after", 12.0, 1.0),
    ]
    times = sorted(profile_step.own_times(events))
    assert times == [("after", 1), ("body", 1), ("body", 4), ("loop", 2), ("product", 3)]


@pytest.mark.parametrize(
    ("source", "part", "work"),
    [
        (
            "jit(update)/jvp(fresh_weights)/Conv_0/jit(_normal)/while/mul",
            "initial weights",
            "Conv_0 mul",
        ),
        (
            "jit(update)/jvp(real_batch)/LeNet/Dense_1/dot_general",
            "real batch",
            "Dense_1 dot_general",
        ),
        (
            "jit(update)/jvp()/while/body/transpose(jvp(real_batch))/LeNet/Conv_0/dot_general",
            "real batch, gradient",
            "Conv_0 dot_general",
        ),
        (
            "jit(update)/jvp()/while/body/transpose(jvp(distilled_batch))/LeNet/max",
            "inner steps",
            "max",
        ),
        ("jit(update)/jvp()/while/body/sub", "inner steps", "sub"),
        (
            _INNER + "rematted_computation/jvp(distilled_batch)/ResNet/Block_3/Conv_1/add",
            "inner steps, gradient",
            "Conv_1 add",
        ),
        ("jit(update)/sqrt", "update of the distilled data", "sqrt"),
    ],
)
def test_a_source_says_part_and_work(source, part, work):
    assert (profile_step.part(source), profile_step.work(source)) == (part, work)


def test_a_program_is_timed_operation_by_operation():
    network = Network(lambda key: jax.random.normal(key, (300, 300)), lambda w, x: x @ w)
    marked = profile_step.scoped(network, distilled=100)

    def program(key, x):
        w = marked.init(key)
        w, _ = jax.lax.scan(lambda w, x: (w - marked.apply(w, x).T @ x, None), w, x)
        return marked.apply(w, jnp.ones((400, 300)))

    arguments = jax.random.key(0), jnp.ones((7, 100, 300))
    compiled = jax.jit(program).lower(*arguments).compile()
    began = time.perf_counter()
    spent = profile_step.profile(compiled, arguments, 2)
    elapsed = time.perf_counter() - began
    operations = profile_step.sources(compiled.as_text())
    total = sum(operation.seconds for operation in spent)
    assert 0 < total < elapsed
    calls = {
        (profile_step.part(operations[operation.operation]), operation.calls)
        for operation in spent
        if operations.get(operation.operation, "").endswith("dot_general")
    }
    assert calls == {("real batch", 1), ("inner steps", 7)}


_SPENT = [Spent("a", 0.6, 30), Spent("b", 0.3, 1), Spent("c", 1.0, 1), Spent("copy.7", 0.1, 1)]
_FOUND = {
    "a": "jit(update)/jvp()/while/body/distilled_batch/Conv_0/dot_general",
    "b": "jit(update)/jvp(real_batch)/Conv_0/conv_general_dilated",
    "c": "jit(update)/jvp(real_batch)/Norm_0/reduce_sum",
}


def test_what_is_recorded_are_shares_of_the_step():
    rows = {metric: value for metric, value, *_ in profile_step.figures(_SPENT, _FOUND)}
    assert rows.pop("step_s") == pytest.approx(2)
    assert rows.pop("share_products") == pytest.approx(0.45)
    assert set(rows) == set(profile_step.SHARES.values())
    assert sum(rows.values()) == pytest.approx(1)
    shown = {name: share for name, share in rows.items() if share}
    expected = {"share_inner_steps": 0.3, "share_real": 0.65, "share_xla": 0.05}
    assert shown == pytest.approx(expected)


def test_the_tables_add_up():
    text = profile_step.tables(_SPENT, _FOUND, 2)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["inner steps", "0.6000", "30.0%"] in rows
    assert ["XLA's own", "0.1000", "5.0%"] in rows
    assert ["all", "2.0000", "100%"] in rows
    assert ["inner steps", "Conv_0 dot_general", "30", "0.6000", "30.0%"] in rows
    assert rows[-1] == ["", "2 more", "", "0.4000", "20.0%"]


@pytest.mark.slow
def test_an_outer_step_is_profiled_and_recorded(tmp_path):
    flags = ["--steps=2", "--epochs=1", "--images=1", "--batch=20", "--image-size=12"]
    flags += ["--repeats=1", "--record", f"--results={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.profile_step", *flags],
        cwd=small_jobs.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts, longest = done.stdout.split("\n\n")
    rows = {line.split("|")[1].strip() for line in parts.splitlines()[2:]}
    assert rows == {
        *("initial weights", "inner steps", "inner steps, gradient", "real batch"),
        *("real batch, gradient", "update of the distilled data", "XLA's own", "all"),
    }
    assert "Conv_1" in longest
    recorded = {figure.metric: figure.value for figure in read(tmp_path)}
    assert set(recorded) == {"step_s", "share_products", *profile_step.SHARES.values()}
    assert 0 < recorded["share_products"] < 1
