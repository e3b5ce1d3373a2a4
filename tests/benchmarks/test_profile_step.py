import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from benchmarks import profile_step
from benchmarks.profile_step import Spent
from gxdistill.pytrees import Network
from tests import jobs

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
    found = profile_step.sources(compiled.as_text())
    total = sum(one.seconds for one in spent)
    assert 0 < total < elapsed
    calls = {
        (profile_step.part(found[one.operation]), one.calls)
        for one in spent
        if found.get(one.operation, "").endswith("dot_general")
    }
    assert calls == {("real batch", 1), ("inner steps", 7)}


def test_the_tables_add_up():
    spent = [Spent("a", 0.6, 30), Spent("b", 0.3, 1), Spent("copy.7", 0.1, 1)]
    found = {
        "a": "jit(update)/jvp()/while/body/distilled_batch/Conv_0/dot_general",
        "b": "jit(update)/jvp(real_batch)/Conv_0/dot_general",
    }
    text = profile_step.tables(spent, found, 2)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["inner steps", "0.6000", "60.0%"] in rows
    assert ["XLA's own", "0.1000", "10.0%"] in rows
    assert ["all", "1.0000", "100%"] in rows
    assert ["inner steps", "Conv_0 dot_general", "30", "0.6000", "60.0%"] in rows
    assert rows[-1] == ["", "1 more", "", "0.1000", "10.0%"]


@pytest.mark.slow
def test_an_outer_step_is_profiled():
    flags = ["--steps=2", "--epochs=1", "--images=1", "--batch=20", "--image-size=12"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.profile_step", *flags, "--repeats=1"],
        cwd=jobs.ROOT,
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
