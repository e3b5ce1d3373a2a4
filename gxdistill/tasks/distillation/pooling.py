"""Releases of several hospitals, added up: one distilled set of all their patients.

Each hospital releases the noisy statistics of its own patients, and writes what may leave it into a
file. Whoever has the files adds them up and makes distilled data of the sum, which is made of these
releases alone: it costs no patient more than the hospital's own release did, and no one sees any.
"""

import dataclasses
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.privacy.features import Features
from gxdistill.privacy.ledger import Ledger
from gxdistill.privacy.statistics import Released, Statistics
from gxdistill.pytrees import Metadata

RELEASE = "release.gxr"

_ABOUT = "release.json"
_MAX_ABOUT = 1 << 20  # Bytes.
_SEVERAL = "patients of several of the hospitals, of whom each released"
# What the numbers depend on beside `weights`; the other settings are for who draws images of them.
_MADE_BY = ("features", "prior", "count", "pixels", "cell")


def write(job: Job, released: Released, ledger: Ledger) -> None:
    """Writes what may leave the hospital into the job's folder: no digest of any image."""
    about = {
        "made_by": _made_by(job),
        "deviations": {name: float(value) for name, value in released.deviations.items()},
        "ledger": ledger.to_dict(),
    }
    arrays = {
        name: np.asarray(value, "<f4").tobytes()
        for name, value in vars(released.statistics).items()
    }
    content = storage.pack({_ABOUT: storage.json_text(about).encode(), **arrays})
    storage.write_bytes(job.workdir / RELEASE, content)


def pooled(job: Job, described: Features) -> tuple[Released, Ledger]:
    """Adds up the releases that `privacy.statistics.releases` names.

    Args:
      job: of the settings that they were made by; of its own patients nothing is released.
      described: its features.

    Returns:
      The sum, and a ledger: of hospitals that share no patient, that of the largest epsilon.

    Raises:
      UserError: a file cannot be read, was made by other settings, is named twice, or promises
        less than the job does.
    """
    shapes = _shapes(job, described)
    paths = [Path(path) for path in job.config.privacy.statistics.releases]
    contents = [storage.read_bytes(path, _largest(shapes)) for path in paths]
    for i, content in enumerate(contents):
        if content in contents[:i]:
            raise UserError(
                f"{paths[i]} is the same release as {paths[contents.index(content)]}: its patients "
                f"would count twice. Leave one out of privacy.statistics.releases."
            )
    parts = [
        _read(job, path, content, shapes) for path, content in zip(paths, contents, strict=True)
    ]
    statistics = Statistics(
        **{
            name: jnp.asarray(sum(np.float64(part[0][name]) for part in parts), jnp.float32)
            for name in shapes
        }
    )
    deviations = {
        name: jnp.float32(np.sqrt(sum(part[1][name] ** 2 for part in parts))) for name in shapes
    }
    ledger = _together(job, paths, [part[2] for part in parts])
    job.log(f"{len(paths)} releases are added up: {ledger.statement()}")
    return Released(statistics, deviations), ledger


def _made_by(job: Job) -> Metadata:
    """Tells what releases must have in common to be added up."""
    settings, data = job.config.privacy.statistics, job.config.data
    made_by = {name: settings[name] for name in _MADE_BY}
    made_by["weights"] = settings.weights.to_dict()
    made_by["data"] = {name: data[name] for name in ("normalise", "levels", "downscale")}
    made_by["shape"] = list(job.problem.shape)
    made_by["classes"] = list(job.cohorts.source.cohort.class_names)
    return made_by


def _shapes(job: Job, described: Features) -> dict[str, tuple[int, ...]]:
    """Tells the shapes of the sums that a job's settings make."""
    blank = jnp.zeros((1, *job.problem.shape))
    d, k = described.describe(blank).shape[1], described.pixels(blank).shape[1]
    classes = job.problem.classes
    return {
        "second": (d, d),
        "sums": (classes, d),
        "pixel_second": (classes, k, k),
        "pixel_sums": (classes, k),
        "counts": (classes,),
    }


def _largest(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes that a release has at most."""
    return sum(4 * int(np.prod(shape)) for shape in shapes.values()) + 2 * _MAX_ABOUT


def _read(
    job: Job, path: Path, content: bytes, shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, float], Ledger]:
    """Reads a release, a stranger's: its sums, the deviations of their noise, and its ledger."""
    members = storage.unpack(content, path)
    if members.keys() != {_ABOUT, *shapes}:
        raise UserError(f"{path} is no release of statistics. Name a {RELEASE} of a hospital.")
    about = storage.parse_json(bytes(members[_ABOUT]), path)
    ours = json.loads(storage.json_text(_made_by(job)))
    theirs = about.get("made_by")
    if theirs != ours:
        told = theirs if isinstance(theirs, dict) else {}
        changed = sorted(name for name in ours if told.get(name) != ours[name])
        raise UserError(
            f"{path} was released by other settings than this job's: {', '.join(changed)} differ. "
            f"All hospitals release by one config."
        )
    sums = {}
    for name, shape in shapes.items():
        if len(members[name]) != 4 * int(np.prod(shape)):
            raise UserError(f"{path} holds `{name}` of another size than its settings make.")
        sums[name] = np.frombuffer(members[name], "<f4").reshape(shape)
        if not np.isfinite(sums[name]).all():
            raise UserError(f"{path} holds `{name}` with values that are no finite numbers.")
    return sums, _deviations(about, shapes, path), Ledger.from_dict(about.get("ledger", {}))


def _deviations(about: Metadata, names: Collection[str], path: Path) -> dict[str, float]:
    told = about.get("deviations")
    values: list[Any] = [told.get(name) for name in names] if isinstance(told, dict) else [None]
    if not all(isinstance(value, float) and 0 < value < 1e30 for value in values):
        raise UserError(f"{path} does not tell how large its noise is. Get a fresh copy.")
    return dict(zip(names, values, strict=True))


def _together(job: Job, paths: Sequence[Path], ledgers: Sequence[Ledger]) -> Ledger:
    """Makes one ledger of those of hospitals that share no patient: each patient is in one."""
    privacy = job.config.privacy
    for path, ledger in zip(paths, ledgers, strict=True):
        if not ledger.events:
            raise UserError(f"{path} books no release in its ledger. Get a fresh copy.")
        stated = (ledger.unit, ledger.adjacency, ledger.delta)
        if stated != ("patient", "add_or_remove", privacy.delta):
            raise UserError(
                f"{path} promises {ledger.statement()}, and this job states a guarantee for a "
                f"patient at delta {privacy.delta:g}. Set privacy.delta to what the hospitals took."
            )
        if (spent := ledger.epsilon()) > privacy.epsilon:
            raise UserError(
                f"{path} promises epsilon {spent:.3g}, more than privacy.epsilon "
                f"{privacy.epsilon:g}. Raise that, or leave the release out."
            )
    largest = max(ledgers, key=Ledger.epsilon)
    uncovered = dict.fromkeys(name for ledger in ledgers for name in ledger.uncovered)
    several = (_SEVERAL,) if len(ledgers) > 1 else ()
    return dataclasses.replace(largest, budget=privacy.epsilon, uncovered=(*several, *uncovered))
