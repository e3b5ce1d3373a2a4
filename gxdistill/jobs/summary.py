"""What is known of a job's cohort, for people."""

import contextlib
from collections.abc import Iterator

import numpy as np

from gxdistill import package, storage
from gxdistill.data import source
from gxdistill.data.quarantine import TooManyBadError, write_quarantine
from gxdistill.jobs.job import Job
from gxdistill.pytrees import Metadata


@contextlib.contextmanager
def keeping_quarantine(job: Job) -> Iterator[None]:
    """Writes `quarantine.csv` where a cohort is refused within, and names it in the refusal.

    Raises:
      TooManyBadError: that of the cohort, with the path of the list.
    """
    try:
        yield
    except TooManyBadError as error:
        path = job.workdir / "quarantine.csv"
        write_quarantine(path, error.quarantine)
        raise TooManyBadError(f"{error} All are named in {path}.", error.quarantine) from error


def write_summary(job: Job, told: source.Source) -> Metadata:
    """Writes what is known of the cohort of a job: `cohort.json`, `quarantine.csv`.

    Args:
      job: whose patches are counted.
      told: what is told of its images.

    Returns:
      The summary.
    """
    data, summary = job.cohorts, dict(source.summary(told))
    summary["patch"] = dict(job.config.patch)
    summary["patches"] = {
        split: dict(zip(data.source.cohort.class_names, counts.tolist(), strict=True))
        for split, counts in (
            (split, np.bincount(table.label, minlength=data.classes))
            for split, table in data.tables.items()
        )
    }
    if told.quarantine or not told.prepared:  # which kept no names
        write_quarantine(job.workdir / "quarantine.csv", told.quarantine)
    storage.write_json(job.workdir / "cohort.json", summary)
    job.log(
        f"cohort: {summary['images']} images of {summary['patients']} patients, "
        f"{summary['quarantine']['count']} quarantined; patches {summary['patches']}"
    )
    return summary


def cohort_counts(summary: Metadata) -> package.CohortCounts:
    """Counts what of a cohort may leave the hospital: no names of files or sites."""
    splits = {
        name: package.SplitCounts(split["images"], split["patients"], split["labels"])
        for name, split in summary["splits"].items()
    }
    return package.CohortCounts(
        images=summary["images"],
        patients=summary["patients"],
        sites=len(summary["sites"]),
        quarantined=summary["quarantine"]["count"],
        splits=package.Splits(**splits),
    )


def reading_of(job: Job) -> package.Reading | None:
    """Tells how a receiver must read images; None where no files were read."""
    known = job.cohorts.source.reading
    if not known:
        return None
    return package.Reading(
        **{name: known[name] for name in ("window", "spacing", "fit", "text")},
        bits=tuple(sorted(map(int, known["bits"]))),
    )
