"""The command that attacks a package with its own cohort."""

import argparse

from gxdistill.cli import budgets
from gxdistill.cli.config import Inputs, job_command
from gxdistill.cli.flags import Flag, whole
from gxdistill.runtime.console import log

_SHADOWS = Flag(
    "shadows",
    "K",
    "cohorts of your own patients that the recipe is run on, each as long as the job (default: 8)",
    read=whole(4, 1000),
)
_CANARIES = Flag(
    "canaries",
    "N",
    "planted patients of each of three kinds (default: 2; 0 plants none)",
    read=whole(0, 1000),
)
_NO_PICTURES = Flag("no-pictures", "", "leaves real patches out of the page")


def _audit(options: argparse.Namespace, inputs: Inputs) -> None:
    from gxdistill.tasks.audit import auditing
    from gxdistill.tasks.distillation.repeating import Recipe

    (file,) = options.paths
    chosen = {name: getattr(options, name) for name in ("shadows", "canaries")}
    how = auditing.Options(
        **{name: value for name, value in chosen.items() if value is not None},
        pictures=not options.no_pictures,
        budget=budgets.of(options),
    )
    result = auditing.audit(inputs.job, file, Recipe(inputs.job), how)
    for name, verdict in result["verdicts"].items():
        print(f"{name.replace('_', ' ')}: {verdict['words']}")
    if result["proven"] is None:
        print("no formal guarantee: the package has no ledger.")
    if how.pictures:
        log(f"{inputs.workdir / 'audit.html'} shows patients: it stays here.")


COMMANDS = (
    job_command(
        "audit",
        "attack it with shadows of your own patients, and write a page; resumes",
        _audit,
        flags=(_SHADOWS, _CANARIES, _NO_PICTURES, *budgets.FLAGS),
        arguments="PACKAGE",
        example="audit runs/demo/package.gxd --config=demo --workdir=runs/demo",
        interrupted="the same command resumes with the shadows that are missing",
    ),
)
