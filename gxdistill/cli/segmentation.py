"""The commands on a segmentation job: train, evaluate, predict, report."""

import argparse
from pathlib import Path

from gxdistill.cli.config import Inputs, job_command
from gxdistill.cli.flags import Command, Flag, path
from gxdistill.errors import UserError
from gxdistill.runtime.console import log

_PACKAGE = Flag("package", "FILE", "the segmenter (default: WORKDIR/segmenter.gxs)", path)
_SEGMENTER = Flag("package", "FILE", "the segmenter, as `segment train` wrote it", path)
_OUT = Flag("out", "DIR", "folder to write (default: segmentations)", path)


def _train(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.runtime import allocator
    from gxdistill.tasks.segmentation import training

    allocator.give_back()
    training.train(inputs.job)


def _evaluate(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.jobs.segmenter_manifest import PACKAGE
    from gxdistill.tasks.segmentation import evaluating

    package = options.package or inputs.workdir / PACKAGE
    print(evaluating.as_text(evaluating.evaluate(inputs.job, package)))


def _predict(options: argparse.Namespace) -> None:
    from gxdistill.tasks.segmentation import predicting

    if options.package is None:
        raise UserError("--package is missing. Name a segmenter, as --package=segmenter.gxs.")
    target = options.out or Path("segmentations").absolute()
    for row in predicting.predict(options.package, options.paths, target, log):
        if "shares" in row:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in row["shares"].items())
            print(f"{row['image']}: {shares}")


def _report(_: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.report.segmentation import write

    log(f"report: {write(inputs.workdir)}")


_SMOKE = "--config=segmentation:smoke --workdir=runs/look"

COMMANDS = (
    job_command(
        "segment train",
        "learn from images and masks to segment, and write segmenter.gxs; resumes",
        _train,
        writes=False,  # By itself.
        example=f"segment train {_SMOKE}",
        interrupted="the same command resumes at the last checkpoint, if there is one",
    ),
    job_command(
        "segment evaluate",
        "measure a segmenter on the test images: overlap and boundaries",
        _evaluate,
        flags=(_PACKAGE,),
        example=f"segment evaluate {_SMOKE}",
    ),
    Command(
        "segment predict",
        "segment images by a package alone, and write their label maps",
        _predict,
        (_SEGMENTER, _OUT),
        arguments="IMAGE...",
        example="segment predict --package=segmenter.gxs IMAGE... --out=DIR",
    ),
    job_command(
        "segment report",
        "write one HTML page with images, truth and prediction, worst first",
        _report,
        example="segment report --workdir=runs/look",
    ),
)
