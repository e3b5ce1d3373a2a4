"""What an audit finds where there is nothing, and where there is much; and how long it takes.

    python -m benchmarks.audit --record
    python -m benchmarks.audit null planted    # some of the cases: demo, null, planted, private

`demo` makes the demo's package and audits it by the command; its seconds are those of the audit.
`null` audits packages that were made of other patients: 20 of them, and of each a draw of patients
who are said to be members. `planted` audits packages whose images were real patches of the members
and were left so, enough to hold each of them: three seeds; `private` those of one private release
at epsilon 8: three seeds. All but the first are of the demo's smoke shape with 200 patients, eight
shadows each.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.main_job import PROGRAM
from benchmarks.record import Measured, Recorder
from configs import demo
from gxdistill import package
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.pytrees import Metadata
from gxdistill.runtime import compile_cache, environment
from gxdistill.runtime.console import log
from gxdistill.tasks.audit import auditing, judging, shadowing
from gxdistill.tasks.distillation import distilling
from gxdistill.tasks.distillation.repeating import Recipe

_NULLS, _SEEDS = 20, 3
_PRIVATE = {"mechanism": "statistics", "epsilon": 8.0, "delta": 1e-3}
_RELEASED = {"features": "cell_moments", "cell": 2, "count": 80, "pixels": 60, "steps": 0}
_OPTIONS = auditing.Options(canaries=0, pictures=False)


def make_job(folder: Path, seed: int = 0, **changes: object) -> Job:
    """Makes a job of the demo's smoke shape with 200 patients.

    Args:
      folder: of the job.
      seed: of everything.
      **changes: of the section `distill`.
    """
    config = demo.get_config("smoke")
    config.seed, config.data.patients = seed, 200
    config.distill.update(outer_steps=40, checkpoint_every=20, batch=64, steps_per_call=10)
    config.distill.update(evaluate_every=40, **changes)
    return Job(config, Workdir(folder), log)


def demo_case(folder: Path) -> list[Measured]:
    """Audits the demo's package by the command; counts its seconds."""
    place = ["--config=demo", f"--workdir={folder}"]
    subprocess.run([PROGRAM, "distill", *place], check=True)
    before = os.times()
    subprocess.run([PROGRAM, "audit", str(folder / "package.gxd"), *place], check=True)
    after = os.times()
    result = json.loads((folder / "audit.json").read_text())
    cpu = sum(after[2:4]) - sum(before[2:4])
    return [
        Measured("demo_minutes", (after.elapsed - before.elapsed) / 60, unit="min"),
        Measured("demo_cpu_minutes", cpu / 60, unit="min"),
        *_figures("demo", [result]),
    ]


def _figures(case: str, results: list[Metadata]) -> list[Measured]:
    """The AUC of each attack, and the largest empirical epsilon, over audits."""
    tests = [result["tests"]["singling_out"] for result in results]
    rows = [
        _mean(f"{case}_auc_{name}", [test["attacks"][name]["auc"]["value"] for test in tests])
        for name in judging.ATTACKS
    ]
    epsilons = [test["epsilon"] for test in tests]
    return [*rows, _mean(f"{case}_empirical_epsilon", epsilons)]


def _mean(metric: str, values: list[float]) -> Measured:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Measured(metric, float(np.mean(values)), std, len(values))


def null_case(folder: Path) -> list[Measured]:
    """Audits packages of which no patient of the pool was a member, whatever the audit is told."""
    job = make_job(folder / "audited")
    pool = shadowing.make_pool(job, each=0)
    members = shadowing.draw_members(pool, _OPTIONS.shadows, job.config.seed)
    runs = shadowing.run_shadows(job, pool, members, Recipe(job))
    elsewhere = make_job(folder / "elsewhere", seed=1)
    others = shadowing.make_pool(elsewhere, each=0)
    drawn = shadowing.draw_members(others, _NULLS, 1)
    # By the seed of the audited job, whose initial weights a package must mean.
    strangers = make_job(folder / "strangers")
    sets = shadowing.run_shadows(strangers, others, drawn, Recipe(strangers))
    results = []
    for i, said in enumerate(shadowing.draw_members(pool, _NULLS, 2)):
        path = folder / f"null{i}.gxd"
        package.save(path, distilling.make_package(job, sets[i]))
        result, _ = auditing.attack(job, path, pool._replace(members=said), members, runs, _OPTIONS)
        results.append(result)
    return [*_figures("null", results), *_covered(results)]


def _covered(results: list[Metadata]) -> list[Measured]:
    """Whether 0.5 lies in the intervals of the AUC: of each attack's mean, and of single audits."""
    rows = []
    for name in judging.ATTACKS:
        areas = [r["tests"]["singling_out"]["attacks"][name]["auc"] for r in results]
        values = np.array([area["value"] for area in areas])
        mean = judging.mean_of(values)
        inside = float(mean.low <= 0.5 <= mean.high)
        rows.append(Measured(f"null_mean_covers_{name}", inside, n=len(values)))
        share = np.mean([area["low"] <= 0.5 <= area["high"] for area in areas])
        rows.append(Measured(f"null_covered_{name}", float(share), n=len(values)))
    return rows


def planted_case(folder: Path) -> list[Measured]:
    """Audits packages whose images are real patches of all members."""
    results = []
    for seed in range(_SEEDS):
        leaky = {"started_from": "real", "outer_steps": 0, "steps": 50, "images_per_step": 12}
        job = make_job(folder / f"seed{seed}", seed, **leaky)
        path = distilling.distil(job)
        results.append(auditing.audit(job, path, Recipe(job), _OPTIONS))
    tests = [result["tests"]["singling_out"] for result in results]
    best = [max(part["auc"]["value"] for part in test["attacks"].values()) for test in tests]
    power = [test["epsilon"] / test["ceiling"] for test in tests]
    rows = [_mean("planted_leak_auc", best), _mean("planted_leak_power", power)]
    return [*rows, *_figures("planted", results)]


def private_case(folder: Path) -> list[Measured]:
    """Audits packages that were made of one private release of statistics."""
    results = []
    for seed in range(_SEEDS):
        job = make_job(folder / f"seed{seed}", seed, init="random", steps=10, images_per_step=60)
        job.config.data.levels = "fixed"
        job.config.privacy.update(**_PRIVATE)
        job.config.privacy.statistics.update(**_RELEASED)
        results.append(auditing.audit(job, distilling.distil(job), Recipe(job), _OPTIONS))
    proven = max(result["proven"]["epsilon"] for result in results)
    return [*_figures("private", results), Measured("private_proven_epsilon", proven)]


CASES = {
    "demo": demo_case,
    "null": null_case,
    "planted": planted_case,
    "private": private_case,
}


def main() -> None:
    """Measures, prints, and with `--record` appends the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--workdir", type=Path, help="keeps the runs, to be resumed")
    Recorder.add_flags(parser)
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    environment.pin()
    compile_cache.enable(log)
    recorder = Recorder("audit", given)
    with tempfile.TemporaryDirectory() as passing:
        for name in given.cases or CASES:
            rows = CASES[name]((given.workdir or Path(passing)).absolute() / name)
            recorder.add("audit", *rows)
            for row in rows:
                print(f"audit {row.metric}: {row.value:.4g} (n = {row.n})", flush=True)


if __name__ == "__main__":
    main()
