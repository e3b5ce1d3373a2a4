"""One step of `benchmarks.gpu`, in this process or in others that it starts.

    python -m benchmarks.gpu_steps NAME --out=FOLDER --seconds=60 [--scale=small] [--data=FOLDER]

is what `benchmarks.gpu` runs; it ends with status 0 when the step is done, `SKIPPED` where it
cannot be taken here and `UNFINISHED` where its time did not suffice. Figures go to FOLDER/results.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import child
from benchmarks.gpu_context import Context, SkippedError, UnfinishedError
from benchmarks.record import Measured
from gxdistill.errors import UserError

SKIPPED, UNFINISHED = 75, 76  # Exit states.
_WHEELS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml_collections", "numpy", "torch")
_PLUGINS = tuple(f"jax-cuda{n}-{part}" for n in (12, 13) for part in ("plugin", "pjrt"))
_TESTS = {
    "full": (
        *("tests/distill", "tests/training", "tests/models", "tests/convolution"),
        "tests/runtime/test_sharding.py",
    ),
    "small": ("tests/distill/test_unroll.py", "tests/distill/test_losses.py"),
}


def target_of(kind: str) -> str | None:
    """Names the description of a kind of device, as JAX calls it; None where there is none."""
    names = {"H100": "h100", "H200": "h200", "A100": "a100", "v5 lite": "tpu-v5e-8", "cpu": "cpu"}
    return next((name for word, name in names.items() if word in kind), None)


def _driver() -> str | None:
    """Asks the driver for its version; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()[0]


def versions() -> dict[str, str]:
    """Lists the versions of what is installed and matters."""
    installed = {"python": platform.python_version()}
    for name in (*_WHEELS, *_PLUGINS):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def device(context: Context) -> None:
    """Writes down the device, versions and driver, and what a product and a copy reach."""
    import jax

    from benchmarks.record import device_name

    first = jax.devices()[0]
    about = {
        "name": device_name(),
        "kind": first.device_kind,
        "platform": first.platform,
        "count": len(jax.devices()),
        "target": target_of(first.device_kind),
        "driver": _driver(),
        "runtime": first.client.platform_version,
        "versions": versions(),
    }
    path = context.out / "device.json"
    path.with_suffix(".part").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    path.with_suffix(".part").replace(path)
    if first.platform == "cpu" and not context.small:
        return  # `benchmarks.gpu` refuses.
    rows = [Measured("devices", len(jax.devices()))]
    memory = (first.memory_stats() or {}).get("bytes_limit")
    rows += [Measured("memory_gb", memory / 1e9, unit="GB")] if memory else []
    context.add("gpu_device", *rows, *_reached(512 if context.small else 8192))


def _reached(size: int) -> list[Measured]:
    """Measures a bfloat16 product of `size` cubed, and a copy of as many values times 16."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((size, size), jnp.bfloat16)
    long = jnp.ones((16 * size * size,), jnp.float32)
    product = _shortest(partial(jax.jit(lambda a: a @ a), a))
    copy = _shortest(partial(jax.jit(lambda x: x + 1), long))
    return [
        Measured("product_tflop_per_s", 2 * size**3 / product / 1e12, unit="TFLOP/s"),
        Measured("copy_gb_per_s", 2 * long.nbytes / copy / 1e9, unit="GB/s"),
    ]


def _shortest(call: Callable[[], Any]) -> float:
    import jax

    jax.block_until_ready(call())
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return min(seconds)


_OUTCOMES = ("PASSED", "FAILED", "ERROR", "SKIPPED")


def outcomes(text: str) -> dict[str, str]:
    """Reads the last outcome of each test from what `pytest -v` printed."""
    words = "|".join(_OUTCOMES)
    # Alone, pytest names the test first, several processes the outcome; a name may have blanks.
    before = re.findall(rf"^\[gw\d+\].*?({words}) (tests/.+?) *$", text, re.M)
    pairs = re.findall(rf"^(tests/.+?::.+?) ({words})\b", text, re.M)
    after = [(word, test) for test, word in pairs]
    return {test: word for word, test in (*after, *before)}


def selected(text: str) -> int | None:
    """Reads how many tests pytest said it would run."""
    counts = re.findall(r"/ (\d+) selected|\[(\d+) items\]|collected (\d+) items?", text)
    return int("".join(counts[-1])) if counts else None


def tests(context: Context) -> None:
    """Runs the core's tests; float32 means float32 in them, so that tolerances hold."""
    if importlib.util.find_spec("pytest") is None:
        raise SkippedError("needs pytest")
    command = [sys.executable, "-m", "pytest", "-v", "-m", "not slow", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("pytest_timeout") is None:  # Which pyproject.toml has a setting of.
        command += ["-o", "addopts=--import-mode=importlib"]
        command += ["-W", "ignore::pytest.PytestConfigWarning"]
    cores = len(os.sched_getaffinity(0))
    if importlib.util.find_spec("xdist") and cores >= 4:
        command += ["-n", str(min(cores // 2, 8)), "--dist", "loadfile"]
    log = context.log("pytest")
    log.unlink(missing_ok=True)
    environment = {
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # For several processes share the device.
    }
    child.run(
        [*command, *_TESTS[context.scale]],
        seconds=context.seconds,
        log=log,
        environment=environment,
    )
    text = log.read_text("utf-8", errors="replace")
    words = list(outcomes(text).values())
    if not words:
        raise UserError(f"no test ran; see {log}")
    count = max(selected(text) or 0, len(words))
    rows = {word.lower(): words.count(word) for word in _OUTCOMES}
    rows["not_run"] = count - len(words)
    context.add("gpu_tests", *(Measured(name, value) for name, value in rows.items()))


def torch(context: Context, row: str) -> None:
    """Times an outer step of ours and of PyTorch, eager and compiled, in turn on one device."""
    from benchmarks import gpu_torch

    if importlib.util.find_spec("torch") is None:
        raise SkippedError("needs PyTorch; none is installed")
    gpu_torch.compare(context, row)


def accelerator(
    context: Context, config: str, changes: Mapping[str, Any], suffix: str = ""
) -> None:
    """Runs outer steps of a config beside their plan, see `benchmarks.accelerator`."""
    from benchmarks import accelerator as bench
    from gxdistill.runtime import allocator

    allocator.give_back()  # As `gxdistill distill` does.
    target = context.target()
    job = bench.config_of(config)
    job.distill.update(changes)
    case = bench.case_of(config + suffix, target)
    trace = context.out / "trace" / case if context.trace else None
    figures = bench.measure(job, target, repeats=2 if context.small else 5, trace=trace)
    rows = bench.rows_of(figures, 2 if context.small else 5)
    price = figures["whole_run_h"] * context.price * context.device["count"]
    unit = f"at {context.price:g} a device-hour"
    context.add(case, *rows, Measured("whole_run_price", price, unit=unit))


def precision(context: Context) -> None:
    """Compares meta-gradients of the device with those of the CPU in float64."""
    from benchmarks import gpu_precision

    gpu_precision.compare(context)


def run(context: Context, config: str) -> None:
    """Runs a config from distilling to its evaluation, or goes on with it."""
    from benchmarks import gpu_run

    gpu_run.advance(context, config)


Step = Callable[[Context], None]


def steps(scale: str) -> dict[str, Step]:
    """Lists the steps in order of worth."""
    small = scale == "small"
    smoke = ":smoke" * small

    def outer(config: str, suffix: str = "", **changes: Any) -> Step:
        return partial(accelerator, config=config, changes=changes, suffix=suffix)

    # Of mnist and radiographs no smaller outer step says anything: a rehearsal takes the demo's.
    plain = ("demo",) if small else ("mnist", "radiograph", "demo")
    convnet = "convnet128_40x1_window20"
    return {
        "device": device,
        "tests": tests,
        "precision": precision,
        **{f"accelerator_{name}": outer(f"{name}{smoke}") for name in plain},
        "gastric": outer(f"gastric{smoke}"),
        f"torch_{convnet}": partial(torch, row=convnet),
        "torch_lenet_10x3": partial(torch, row="lenet_10x3"),
        "gastric_card_memory": outer(f"gastric{smoke}", "_card_memory", memory_budget_mb=0),
        "gastric_side_by_side": outer(f"gastric{smoke}", "_side_by_side", networks_at_once=0),
        "run_phantom_known": partial(
            run, config=f"gastric:{'smoke' if small else 'phantom_known'}"
        ),
        "run_mnist": partial(run, config=f"mnist:{'smoke' if small else 'convnet128_random_10'}"),
        "run_phantom_random": partial(
            run, config="demo:smoke" if small else "gastric:phantom_random"
        ),
    }


def main() -> None:
    """Takes one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--price", type=float, default=2.0)
    given = parser.parse_args()
    until = time.monotonic() + given.seconds
    context = Context(
        given.name, given.out, given.scale, given.data, given.trace, given.price, until
    )
    try:
        steps(given.scale)[given.name](context)
    except SkippedError as reason:
        print(f"skipped: {reason}", flush=True)
        sys.exit(SKIPPED)
    except UnfinishedError as reason:
        print(f"unfinished: {reason}", flush=True)
        sys.exit(UNFINISHED)
    except UserError as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main()
