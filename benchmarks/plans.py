"""The papers' full-size job on accelerators that are not there, read from their compilers.

    python -m benchmarks.plans --record                     # needs pip install -e '.[plan]'
    python -m benchmarks.plans --record --only h100         # minutes
    python -m benchmarks.plans --record --only weak_scaling

- `temp_gb_h100`, `temp_gb_v5e8`, ...: temporary memory of a device for configs/gastric.py, in GB.
  What else its plan says is a case of its own, `plan_h100`, `plan_v5e8`, ...: of an outer step, the
  operations, the bytes, and the least seconds by what could bind them, of one device.
- `inner_steps_300_h100`, `inner_steps_300_v5e8`: memory of a device with T = 300 inner steps as a
  multiple of that with 30.
- `weak_scaling_256`: predicted efficiency of 256 v5e chips beside 4: the time of a step without its
  links as a share of the time with them, for configs/gastric.py as it is compiled for 8 chips, a
  network for each two. What a chip sends is the size of the distilled data, which is seen in
  configs/radiograph.py:learned compiled for 4, 16, 64 and 256 chips, one network each:
  `sent_spread` is by how much a chip's bytes differ, `weak_scaling_256_radiograph` the efficiency,
  for steps that are too short to be worth so many chips.
- `cpu_s_CONFIG`: processor seconds of a plan for this machine's CPU, compiling included;
  `again_cpu_s_CONFIG`: of the same plan once more.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.accelerator import config_of
from benchmarks.record import Measured, Recorder
from gxdistill import plan
from gxdistill.errors import UserError
from gxdistill.plan import targets
from gxdistill.runtime.console import log

_CHIPS = {4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8", 256: "v5e:16x16"}
SMALL = ("demo", "radiograph", "mnist")
_HOP_S = 1e-6  # Of one message from a chip to the next, at most.
_UNITS = {"gb": "GB", "s": "s", "h": "h", "tflop": "TFLOP"}  # By a word of the metric.
TARGETS = {"h100": "h100", "a100": "a100", "v5e8": "tpu-v5e-8", "v5p8": "tpu-v5p-8"}

Figures = dict[str, dict[str, float]]  # By case and metric.


def _gastric(target: str, inner_steps: int = 30) -> plan.Plan:
    config = config_of("gastric")
    config.distill.epochs = inner_steps
    job_plan = plan.make(config, target, log=log)
    print(plan.as_text(job_plan), end="\n\n")
    return job_plan


def on(name: str) -> Figures:
    """Plans for one of `TARGETS`."""
    job_plan = _gastric(TARGETS[name])
    temporaries = job_plan.compiled.temporaries / 1e9
    figures = {
        **{f"peak_gb_{strategy}": peak / 1e9 for strategy, peak in job_plan.peaks.items()},
        "arguments_gb": job_plan.compiled.arguments / 1e9,
        "temp_gb": temporaries,
        "tflop": job_plan.flops / 1e12,
        "moved_gb": job_plan.moved / 1e9,
        "sent_gb": job_plan.sent / 1e9,
        **{f"{what}_s": seconds for what, seconds in job_plan.seconds.items()},
        "whole_run_h": max(job_plan.seconds.values()) * job_plan.outer_steps / 3600,
        "largest_batch": job_plan.largest_batch,
    }
    return {"plan": {f"temp_gb_{name}": temporaries}, f"plan_{name}": figures}


def inner_steps() -> Figures:
    """Compares ten times as many inner steps."""
    figures = {}
    for name in ("h100", "v5e8"):
        short, long = (_gastric(TARGETS[name], count).compiled.peak for count in (30, 300))
        figures[f"inner_steps_300_{name}"] = long / short
    return {"plan": figures}


def _efficiency(job_plan: plan.Plan, chips: int) -> float:
    """Predicts which share of a step is no waiting, when so many chips do what one does."""
    alone = max(job_plan.seconds["products"], job_plan.seconds["memory"])
    # All-reduce around both sides of the torus, there and back.
    hops = 4 * chips**0.5 * _HOP_S
    return alone / (alone + job_plan.seconds["links"] + hops)


def weak_scaling() -> Figures:
    """Compares 256 chips with 4, for a large job and a small one."""
    config = config_of("radiograph:learned")
    config.network.options.dtype = "bfloat16"
    sent = {}
    for chips, topology in _CHIPS.items():
        config.distill.networks = chips
        target = targets.load("tpu-v5e-8")._replace(name=f"{chips} v5e", topology=topology)
        small = plan.make(config, target, log=log)
        print(plan.as_text(small), end="\n\n")
        sent[chips] = small.sent
    large = _gastric("tpu-v5e-8")
    figures = {
        "weak_scaling_256": _efficiency(large, 256) / _efficiency(large, 4),
        "sent_spread": max(sent.values()) / min(sent.values()) - 1,
        "weak_scaling_256_radiograph": _efficiency(small, 256) / _efficiency(small, 4),
    }
    return {"plan": figures}


def small() -> Figures:
    """Times plans of the configs that a CPU is enough for."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SMALL:
            for metric in (f"cpu_s_{name}", f"again_cpu_s_{name}"):
                began = time.process_time()
                plan.make(config_of(name), "cpu", log=log, folder=Path(folder))
                figures[metric] = time.process_time() - began
    return {"plan": figures}


PARTS: dict[str, Callable[[], Figures]] = {
    **{name: partial(on, name) for name in TARGETS},
    "inner_steps": inner_steps,
    "weak_scaling": weak_scaling,
    "small": small,
}


def _unit(metric: str) -> str:
    return next((unit for word, unit in _UNITS.items() if word in metric.split("_")), "1")


def main() -> None:
    """Plans, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    Recorder.add_flags(parser)
    arguments = parser.parse_args()
    for part in arguments.only:
        recorder = Recorder("plans", arguments)
        try:
            figures = PARTS[part]()
        except UserError as error:
            sys.exit(f"benchmarks.plans: {error}")
        print(figures)
        for case, found in figures.items():
            recorder.add(case, *(Measured(*row, unit=_unit(row[0])) for row in found.items()))


if __name__ == "__main__":
    main()
