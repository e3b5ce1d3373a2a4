"""What a job keeps in its working folder beside its results: settings, and what is known of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gxdistill import storage
from gxdistill.data import source
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.pytrees import Metadata

_SETTINGS = "settings.json"  # Of the run whose checkpoints lie beside it.


def describe(job: Job, found: source.Source) -> Metadata:
    """Writes what is known of the cohort of a job: `cohort.json`, `quarantine.csv`.

    Args:
      job: whose patches are counted.
      found: what is told of its images.

    Returns:
      The summary.
    """
    summary = dict(source.summary(found))
    summary["patch"] = dict(job.config.patch)
    summary["patches"] = {
        split: dict(zip(job.source.cohort.class_names, counts.tolist(), strict=True))
        for split, counts in (
            (split, np.bincount(table.label, minlength=job.classes))
            for split, table in job.tables.items()
        )
    }
    if found.quarantine or not found.prepared:  # which kept no names
        source.write_quarantine(job.workdir / "quarantine.csv", found.quarantine)
    storage.write_json(job.workdir / "cohort.json", summary)
    job.log(
        f"cohort: {summary['images']} images of {summary['patients']} patients, "
        f"{summary['quarantine']['count']} quarantined; patches {summary['patches']}"
    )
    return summary


def write_settings(job: Job) -> None:
    """Writes what the results in the folder will depend on."""
    storage.write_json(job.workdir / _SETTINGS, job.identity())


def check_same(job: Job) -> None:
    """Refuses to go on with, or to replace, a run of other settings."""
    path = job.workdir / _SETTINGS
    if not path.exists():
        return
    was, now = (dict(_flat(tree)) for tree in (storage.read_json(path), job.identity()))
    changed = sorted(k for k in was.keys() | now.keys() if was.get(k) != now.get(k))
    if changed:
        what = ", ".join(f"{k} (was {was.get(k)!r}, is {now.get(k)!r})" for k in changed[:5])
        raise UserError(
            f"{job.workdir} holds a run with other settings: {what}. Choose another --workdir, or "
            f"the settings of before."
        )


def _flat(tree: Metadata, at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value
