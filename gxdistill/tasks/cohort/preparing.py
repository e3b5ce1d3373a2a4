"""`gxdistill prepare`: writes a cohort as a set that is read again and again, and checks it."""

import csv
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.data import leaks, quarantine, source
from gxdistill.data.files import reading
from gxdistill.data.files.manifest import Entry, Quarantined, duplicates
from gxdistill.data.prepared import builder, parts, reader
from gxdistill.data.prepared.parts import Part, Row
from gxdistill.data.splits import SPLITS
from gxdistill.errors import UserError
from gxdistill.jobs import kinds
from gxdistill.jobs.job import Job
from gxdistill.jobs.summary import keeping_quarantine, write_summary
from gxdistill.pytrees import Metadata
from gxdistill.runtime.console import Progress
from gxdistill.runtime.environment import usable_cores

_SHOWN = 3


class _Plan(NamedTuple):
    """What is to be written, under its own names; whether files are read, or memory is."""

    from_files: bool
    entries: tuple[Entry, ...]
    bad: dict[int, Quarantined]
    parts: list[Part]
    manifest: Path
    recipe: reading.Recipe

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.inputs for part in self.parts).encode()).hexdigest()


def prepare(job: Job) -> Path:
    """Writes the cohort of a job as a tensorflow-datasets set, and says what is in it.

    Stopped at any time, it goes on with what is missing; the set appears when it is whole. What was
    prepared before is kept as a version of its own.

    Returns:
      The folder of the set.

    Raises:
      UserError: it cannot be read or written, too much is bad, or training and test share what
        `data.leaks` refuses.
    """
    if kinds.kind_of(job.config).is_prepared:
        raise UserError("data.kind is 'prepared': there is nothing to prepare. Distil from it.")
    kinds.check_grey(job.config, "gxdistill prepare")
    with job.workdir.locked("gxdistill prepare"):
        return _prepare(job)


def _prepare(job: Job) -> Path:
    home = job.workdir / "prepared" / builder.NAME
    with keeping_quarantine(job):
        plan = _plan(job)
    latest = reader.find_version(home)
    if latest and reader.read_metadata(latest)["fingerprint"] == plan.fingerprint:
        job.log(f"prepared already: {latest}")
        return latest
    staging = job.workdir / "prepared" / "parts"
    with keeping_quarantine(job):
        plan, rows = _written(job, plan, staging)
    _judge_leaks(job, plan, rows)
    place = home / (f"1.0.{int(latest.name.split('.')[-1]) + 1}" if latest else "1.0.0")
    builder.assemble(plan.parts, staging, place, _metadata(plan, rows, staging))
    storage.remove_folder(staging)
    _describe(job, plan, place)
    job.log(f"prepared: {place}; read it by --config.data.kind=prepared --config.data.path={place}")
    return place


def _plan(job: Job) -> _Plan:
    from_files = kinds.kind_of(job.config).from_files
    if from_files:
        listing = kinds.list_files(job.config, job.log)
        entries, bad, manifest, recipe = (
            listing.entries,
            listing.bad,
            listing.manifest,
            listing.recipe,
        )
    else:
        entries, bad = parts.entries_of_cohort(job.cohorts.source.cohort), {}
        manifest, recipe = job.cohorts.source.manifest, job.cohorts.source.recipe
    sites = [entry.site for entry in entries]
    names = parts.pseudonyms(job.workdir / "pseudonyms.json", sites)
    if from_files:
        planned = parts.parts_of_files(entries, recipe, tuple(job.config.data.label_names), names)
    else:
        planned = parts.parts_of_cohort(job.cohorts.source.cohort, names)
    return _Plan(from_files, entries, bad, planned, manifest, recipe)


def _written(job: Job, plan: _Plan, staging: Path) -> tuple[_Plan, dict[int, Row]]:
    """Writes all parts; returns the plan of what is left, and what was read by line."""
    total, by_line = len(plan.entries) + len(plan.bad), {e.line: e for e in plan.entries}
    share = job.config.data.max_bad_share
    bad = dict(plan.bad)

    def write(planned: Sequence[Part]) -> dict[int, Row]:
        clock = Progress(job.log, "preparing images")
        accounts = builder.write_parts(planned, staging, processes=usable_cores(), progress=clock)
        rows = {row.line: row for account in accounts for row in account.rows}
        for line, row in rows.items():
            if row.reason:
                bad[line] = Quarantined(by_line[line].name, row.reason)
        quarantine.stop_if_too_bad(bad, total, share, plan.manifest)
        return {line: rows[line] for line in sorted(rows) if not rows[line].reason}

    rows = write(plan.parts)
    if plan.from_files:
        digests = {by_line[line]: row.digest for line, row in rows.items()}
        twice = duplicates(digests, "pixels")
        if twice:
            bad |= twice
            plan = plan._replace(parts=[part.without(set(twice)) for part in plan.parts])
            rows = write(plan.parts)
        names = tuple(job.config.data.label_names)
        source.check_classes([by_line[line] for line in rows], names, plan.manifest)
    return plan._replace(entries=tuple(by_line[line] for line in rows), bad=bad), rows


def _judge_leaks(job: Job, plan: _Plan, rows: dict[int, Row]) -> None:
    """Writes what training and test share to `leaks.csv`, and warns or refuses."""
    columns = {
        name: np.array([getattr(entry, field) for entry in plan.entries])
        for name, field in (("splits", "split"), ("patients", "patient"), ("sites", "site"))
    }
    hashes = bytes.fromhex("".join(rows[entry.line].hash for entry in plan.entries))
    pairs = leaks.find(
        columns["splits"],
        patients=columns["patients"],
        sites=columns["sites"],
        names=[entry.name for entry in plan.entries],
        hashes=np.frombuffer(hashes, np.uint64).reshape(-1, 4),
    )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([leaks.Leak._fields, *pairs])
    path = job.workdir / "leaks.csv"
    storage.write_text(path, text.getvalue())
    for kind, rule in job.config.data.leaks.items():
        of_kind = [leak for leak in pairs if leak.kind == kind]
        if not of_kind or rule == "allow":
            continue
        shown = "; ".join(" and ".join(dict.fromkeys(leak[1:])) for leak in of_kind[:_SHOWN])
        what = (
            f"{leaks.WORDS[kind]} in training and test: {len(of_kind)}, as {shown} (all in {path})"
        )
        if rule == "refuse":
            raise UserError(f"{what}. Mend the splits, or set data.leaks.{kind} to 'warn'.")
        job.log(f"warning: {what}")


def _metadata(plan: _Plan, rows: dict[int, Row], staging: Path) -> Metadata:
    """What a set says of itself: nothing by which a file, a patient or a site could be known."""
    form = plan.parts[0].form
    columns: dict[str, dict[str, list]] = {
        name: {split: [] for split in SPLITS} for name in ("label", "patient", "site", "hash")
    }
    levels = {split: np.zeros(256, np.int64) for split in SPLITS}
    for part in plan.parts:
        levels[part.split] += builder.read_account(part, staging).levels
        for entry in part.entries:
            if entry.line in rows:
                for name in ("label", "patient", "site"):
                    columns[name][part.split].append(getattr(entry, name))
                columns["hash"][part.split].append(rows[entry.line].hash)
    facts = [row.facts for row in rows.values() if row.facts]
    return {
        "schema": builder.SCHEMA,
        "fingerprint": plan.fingerprint,
        "image_size": list(form.shape),
        "downscale": plan.recipe.downscale,
        "normalise": plan.recipe.normalise,
        "read_size": list(plan.recipe.size or form.shape),
        "masks": form.masks,
        "class_names": [*(["irrelevant"] if form.masks else []), *form.label_names],
        "counts": {
            split: {
                "images": len(columns["label"][split]),
                "patients": len(set(columns["patient"][split])),
                "sites": len(set(columns["site"][split])),
                "labels": dict(Counter(form.label_names[i] for i in columns["label"][split])),
            }
            for split in SPLITS
        },
        "quarantined": len(plan.bad),
        "reading": reading.account(plan.recipe, facts) if plan.from_files else {},
        "levels": {split: of.tolist() for split, of in levels.items()},
        "columns": columns,
    }


def _describe(job: Job, plan: _Plan, place: Path) -> None:
    """Writes the summary of the set as it is read back."""
    config = job.config.copy_and_resolve_references()
    config.data.kind, config.data.path = "prepared", str(place)
    prepared = Job(config, job.workdir, job.log)
    whole = dataclasses.replace(
        prepared.cohorts.source, quarantine=quarantine.in_order(plan.bad), manifest=plan.manifest
    )
    write_summary(prepared, whole)
