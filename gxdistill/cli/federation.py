"""The commands on a federation of sites."""

import argparse

from gxdistill.cli.config import Inputs, job_command
from gxdistill.cli.distillation import FORCE
from gxdistill.cli.flags import Command, Flag, path, share, whole
from gxdistill.errors import UserError
from gxdistill.runtime.console import log


def _simulate(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.federation import simulating

    print(simulating.as_text(simulating.simulate(inputs.job)))


def _distill(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.distillation import distilling, method
    from gxdistill.tasks.federation import sharing

    job = inputs.job
    problem = sharing.problem_of(job)
    distilling.distil(job, force=options.force, problem=problem)
    told = sharing.write_traffic(job, method.initial_learned(problem, job.config.distill))
    log(sharing.as_text(told))


def _report(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.report import federation

    log(f"report: {federation.write(inputs.workdir)}")


def _new(options: argparse.Namespace) -> None:
    from gxdistill.tasks.federation import proposing

    for line in proposing.write(options.paths, options.out or path("federation.py")):
        log(line)


def _epsilon(options: argparse.Namespace) -> None:
    from gxdistill.tasks.federation import promises

    delta = 1e-2 if options.delta is None else options.delta
    if not 0 < delta < 1:
        raise UserError(f"--delta is {delta}; it must lie between 0 and 1, without these.")
    print(promises.curve_text(options.rounds or 50, delta))


COMMANDS = (
    Command(
        "federate new",
        "write a config for a folder of images and masks of each hospital",
        _new,
        (Flag("out", "FILE", "the config to write (default: federation.py)", path),),
        arguments="FOLDER FOLDER...",
        example="federate new north south --out=ours.py",
    ),
    job_command(
        "federate simulate",
        "train sites alone, in one place and together, on one machine; resumes",
        _simulate,
        example="federate simulate --config=federation:smoke",
        interrupted=(
            "the same command resumes at the last checkpoint of the training that was at work"
        ),
    ),
    job_command(
        "federate report",
        "write one HTML page of what `federate simulate` measured",
        _report,
        example="federate report --workdir=runs/federation_smoke",
    ),
    job_command(
        "federate distill",
        "learn one distilled set at several sites, which share meta-gradients; resumes",
        _distill,
        writes=False,  # By itself.
        flags=(FORCE,),
        example="federate distill --config=sharing:smoke",
        interrupted="the same command resumes at the last checkpoint, if there is one",
    ),
    Command(
        "federate epsilon",
        "tell what noise on the sites' updates costs, by its size; the unit is the site",
        _epsilon,
        (
            Flag("rounds", "N", "in which a site takes part (default: 50)", whole(1, 10**6)),
            Flag("delta", "X", "at which epsilon is told (default: 0.01)", share),
        ),
        example="federate epsilon --rounds=50 --delta=0.01",
    ),
)
