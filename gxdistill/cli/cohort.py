"""The commands on a cohort of one's own, before any job: look at it, check it."""

import argparse

from gxdistill.cli.config import Inputs, job_command
from gxdistill.cli.flags import Command, Flag, path
from gxdistill.runtime.console import log


def _check(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.cohort import checking

    checking.check(inputs.job)


def _new(options: argparse.Namespace) -> None:
    from gxdistill.tasks.cohort import proposing

    (folder,) = options.paths
    target = options.out or path("own.py")
    for line in proposing.write(folder, target):
        log(line)


COMMANDS = (
    Command(
        "new",
        "look at a folder of images and write a config for it, with comments",
        _new,
        (Flag("out", "FILE", "the config to write (default: own.py)", path),),
        arguments="FOLDER",
        example="new FOLDER --out=own.py",
    ),
    job_command(
        "check",
        "read all files of a cohort and show what is bad; status 1 if it cannot be used",
        _check,
        example="check --config=gastric --config.data.path=FOLDER --workdir=runs/mine",
    ),
)
