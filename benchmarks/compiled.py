"""What an accelerator's compiler makes of the outer steps, read ahead of time from its output.

    python -m benchmarks.compiled --target=h100 --record          # pip install -e '.[plan]'
    python -m benchmarks.compiled --target=h100 --configs gastric gastric/memory=store

Of each config, compiled for a device that is not there: operations and bytes of an outer step,
temporary memory, and what would slow a call down:

- `host_transfers`: operations that hand values to the host or wait for some within a call.
- `loops`, `loops_led_by_host`: loops, and those of them whose number of turns the compiler does not
  know: on a GPU the host then asks the device before each turn.
- `donated`: arrays of the state whose place the new state takes; `state_arrays`: all of them.
- `products_bf16`, `products_f32`: matrix products and convolutions by the type of their operands,
  `grouped`: convolutions in groups, as `vmap` over networks makes them.
- `steps_per_call`: outer steps of one dispatch.

Settings of `distill` follow a config's name, as in `gastric/memory=store/networks_at_once=0`.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator

import jax
import ml_collections

from benchmarks.accelerator import CONFIGS, config_of
from benchmarks.record import Measured, Recorder
from gxdistill import plan
from gxdistill.errors import UserError
from gxdistill.jobs import kinds
from gxdistill.plan import compiling, counting, program, targets
from gxdistill.plan.counting import Operation
from gxdistill.runtime import platform

_HOST = ("infeed", "outfeed", "send", "recv")
_HOST_SPACE = "S(5)"  # In a layout: the host's memory.
_PRODUCTS = re.compile(r'custom_call_target="__(?:cublas|cudnn\$conv)')
_DTYPE = re.compile(r"\b(bf16|f16|f32|f64)\[")
# What the tables show.
SHOWN = (
    *("gastric", "gastric/memory_budget_mb=0", "gastric/networks_at_once=0"),
    *("radiograph", "mnist", "demo"),
)
METRICS = (
    *("tflop", "moved_gb", "temp_gb", "peak_gb", "steps_per_call", "host_transfers", "loops"),
    *("loops_led_by_host", "state_arrays", "donated", "products_bf16", "products_f32", "grouped"),
    "compile_s",
)
_UNITS = {"tflop": "TFLOP", "moved_gb": "GB", "temp_gb": "GB", "peak_gb": "GB", "compile_s": "s"}


def case_of(config: str, target: str = "h100") -> str:
    """Names the case of a config, with its settings, on a target."""
    return re.sub(r"[^a-z0-9]+", "_", f"compiled_{config}_{target}")


def configure(name: str) -> ml_collections.ConfigDict:
    """Reads a config and the settings of `distill` that follow its name.

    Raises:
      UserError: a setting is not known.
    """
    name, *changes = name.split("/")
    config = config_of(name)
    for change in changes:
        setting, _, value = change.partition("=")
        if setting not in config.distill:
            raise UserError(f"distill has no setting {setting}.")
        config.distill[setting] = type(config.distill[setting])(value)
    return config


def read(text: str) -> dict[str, int]:
    """Counts in a compiled program what slows a call down, by the names of this module.

    Args:
      text: of the optimised program, as XLA prints it.
    """
    computations, _ = counting.parse(text)
    every = [operation for body in computations.values() for operation in body]
    loops = [operation for operation in every if operation.kind == "while"]
    products = Counter(dtype for body in computations.values() for dtype in _product_dtypes(body))
    return {
        "host_transfers": sum(_meets_host(operation) for operation in every),
        "loops": len(loops),
        "loops_led_by_host": sum("known_trip_count" not in loop.rest for loop in loops),
        "donated": _donated(text),
        "products_bf16": products["bf16"],
        "products_f32": products["f32"],
        "grouped": sum(
            int(count) > 1
            for o in every
            for count in re.findall(r"feature_group_count=(\d+)", o.rest)
        ),
    }


def _meets_host(operation: Operation) -> bool:
    kind = operation.kind.removesuffix("-start").removesuffix("-done")
    return (
        kind in _HOST
        or _HOST_SPACE in operation.result
        or "callback" in operation.rest.split("metadata=")[0]
    )


def _donated(text: str) -> int:
    """Counts the outputs that take an argument's place, in the program's head."""
    head = text.split("\n", 1)[0]
    return len(re.findall(r"(?:may|must)-alias", head))


def _product_dtypes(body: list[Operation]) -> Iterator[str]:
    """Names the type of the first operand of each product in a computation."""
    results = {operation.name: operation.result for operation in body}
    for operation in body:
        if operation.kind in ("dot", "convolution") or _PRODUCTS.search(operation.rest):
            types = _DTYPE.findall(results.get(operation.operands[0], "") or operation.inside)
            yield types[0] if types else "other"


def compile_for(config: ml_collections.ConfigDict, target: targets.Target) -> dict[str, float]:
    """Compiles a config's outer steps for a target, and reads what they do.

    Raises:
      UserError: the compiler is missing, or the config is unfit.
    """
    here = jax.local_devices(backend="cpu")[0]
    with platform.planned_for(target.platform), jax.default_device(here):
        devices = None if target.platform == "cpu" else tuple(targets.devices(target))
        memory = None if devices is None else target.memory
        settings = program.settings_of(config)
        problem = program.problem_of(config, kinds.size_of(config, None), devices, memory)
        built = program.build(problem, settings)
        lowered = built.jitted.lower(*built.arguments)
        began = time.monotonic()
        executable = lowered.compile()
    told = compiling.read(executable, built.unknown, time.monotonic() - began)
    described = plan.describe(config, problem, target, built, told)
    return {
        "tflop": described.flops / 1e12,
        "moved_gb": described.moved / 1e9,
        "temp_gb": told.temporaries / 1e9,
        "peak_gb": told.peak / 1e9,
        "steps_per_call": config.distill.steps_per_call,
        "state_arrays": len(jax.tree.leaves(built.arguments[0])),
        **read(executable.as_text() or ""),
        "compile_s": told.compile_s,
    }


def main() -> None:
    """Compiles, prints a JSON line a config, and with `--record` appends the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, choices=targets.NAMES)
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    Recorder.add_flags(parser)
    given = parser.parse_args()
    for name in given.configs:
        case = case_of(name, given.target)
        recorder = Recorder("compiled", given)
        try:
            figures = compile_for(configure(name), targets.load(given.target))
        except UserError as error:
            sys.exit(f"benchmarks.compiled: {name}: {error}")
        print(json.dumps({"case": case, "jax": jax.__version__, **figures}), flush=True)
        recorder.add(
            case, *(Measured(*row, unit=_UNITS.get(row[0], "1")) for row in figures.items())
        )


if __name__ == "__main__":
    main()
