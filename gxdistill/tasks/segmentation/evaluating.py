"""Measuring a segmenter on the test images: overlap, boundaries, and the cases for the page."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.evaluation import boundaries, overlap
from gxdistill.jobs.job import Job
from gxdistill.package.segmenter import Segmenter, load_segmenter
from gxdistill.package.segmenting import probabilities
from gxdistill.pytrees import Cohort, Metadata
from gxdistill.runtime.console import Progress
from gxdistill.tasks.segmentation.labelled import Labelled

FIGURES, CASES = "segmentation.json", "segmentations.npz"
_SHOWN = 8  # Cases that are kept with their pixels for the page, worst first.

# What each figure is, and in which direction it is better.
_OVERLAPS = {
    "dice": overlap.dice,
    "jaccard": overlap.jaccard,
    "found": overlap.recall,
}
_DISTANCES = ("hd95", "asd", "surface_dice")


class Case(NamedTuple):
    """What was measured of one image, or of the slices of one patient.

    Attributes:
      name: of the image or the patient.
      site: of the image or the patient.
      figures: by name `[K]`, of each class.
      accuracy: share of all pixels whose class was found.
      worst: row of the image, among the cohort's, in which most pixels are wrong.
    """

    name: str
    site: str
    figures: dict[str, np.ndarray]
    accuracy: float
    worst: int


def evaluate(job: Job, path: Path) -> Metadata:
    """Measures a segmenter on the job's test images, and keeps what the page shows.

    Args:
      job: with the section `segment`.
      path: of the segmenter's package.

    Returns:
      The figures, as `segmentation.json` has them.

    Raises:
      UserError: the package cannot be read, or is of other classes than the job's.
    """
    segmenter, data = load_segmenter(path), Labelled(job)
    check_classes(segmenter, data.class_names, path)
    cohort, clock = data.test, Progress(job.log, "segmenting test images")
    predicted = np.empty(cohort.images.shape[:3], np.uint8)
    for i, image in enumerate(cohort.images):
        predicted[i] = probabilities(segmenter, np.asarray(image)).argmax(axis=-1)
        clock(i + 1, len(predicted))
    settings = job.config.segment
    classes = len(data.class_names)
    groups = _groups(cohort, settings.measure)
    cases = [
        _measured(cohort, predicted, rows, classes, settings.tolerance)._replace(name=name)
        for name, rows in groups
    ]
    cases.sort(key=lambda case: float(case.figures["dice"][1:].mean()))
    figures = {
        "class_names": list(data.class_names),
        "measure": settings.measure,
        "tolerance": settings.tolerance,
        "segmenter": segmenter.sha256,
        "images": len(cohort.labels),
        "patients": len(set(cohort.patients.tolist())),
        **_summary(cases, data.class_names),
        "sites": {
            site: _summary([case for case in cases if case.site == site], data.class_names)
            for site in sorted({case.site for case in cases})
        },
        "cases": [_as_json(case, data.class_names) for case in cases],
    }
    storage.write_json(job.workdir / FIGURES, figures)
    shown = np.array([case.worst for case in cases[:_SHOWN]])
    storage.write_arrays(
        job.workdir / CASES,
        images=cohort.images[shown],
        truth=np.asarray(cohort.masks)[shown].astype(np.uint8),
        predicted=predicted[shown],
        names=cohort.names[shown],
    )
    return figures


def check_classes(segmenter: Segmenter, names: tuple[str, ...], path: Path) -> None:
    """Refuses a segmenter of other classes.

    Raises:
      UserError: naming both.
    """
    theirs = segmenter.manifest.class_names
    if theirs != names:
        raise UserError(
            f"{path} tells {', '.join(theirs)} apart, and data.mask_classes are "
            f"{', '.join(names)}. Name the package of this job by --package."
        )


def _groups(cohort: Cohort, measure: str) -> Iterator[tuple[str, np.ndarray]]:
    """Gives what is measured together: a name, and rows of the cohort in their order."""
    if measure == "image":
        for i, name in enumerate(cohort.names.tolist()):
            yield name, np.array([i])
        return
    for patient in np.unique(cohort.patients).tolist():
        rows = np.flatnonzero(cohort.patients == patient)
        yield patient, rows[np.argsort(cohort.names[rows], kind="stable")]


def _measured(
    cohort: Cohort, predicted: np.ndarray, rows: np.ndarray, classes: int, tolerance: float
) -> Case:
    truth, labels = np.asarray(cohort.masks)[rows].astype(np.uint8), predicted[rows]
    count, height, width = truth.shape
    flat = (1, count * height, width)
    figures = {
        key: figure(labels.reshape(flat), truth.reshape(flat), classes)[0]
        for key, figure in _OVERLAPS.items()
    }
    # Of one image, an axis of one slice would make all of it boundary.
    solid = (1, *truth.shape) if count > 1 else truth.shape
    pair = labels.reshape(solid), truth.reshape(solid)
    far = boundaries.compare(*pair, classes, tolerance=tolerance)
    figures |= {key: getattr(far, key)[0] for key in _DISTANCES}
    wrong = (labels != truth).sum(axis=(1, 2))
    return Case(
        str(cohort.names[rows[0]]),
        str(cohort.sites[rows[0]]),
        figures,
        float(overlap.pixel_accuracy(labels.reshape(flat), truth.reshape(flat))[0]),
        int(rows[wrong.argmax()]),
    )


def _summary(cases: list[Case], class_names: tuple[str, ...]) -> Metadata:
    """Averages over cases: of each class but the background, of their mean, and of all pixels."""
    keys = cases[0].figures
    values = {key: np.stack([case.figures[key] for case in cases]) for key in keys}  # [cases, K]

    def stated(numbers: np.ndarray) -> Metadata:
        return {"mean": float(numbers.mean()), "std": float(numbers.std()), "n": len(numbers)}

    return {
        "mean": {key: stated(array[:, 1:].mean(axis=1)) for key, array in values.items()},
        "classes": {
            name: {key: stated(array[:, k]) for key, array in values.items()}
            for k, name in enumerate(class_names)
            if k > 0
        },
        "accuracy": stated(np.array([case.accuracy for case in cases])),
    }


def _as_json(case: Case, class_names: tuple[str, ...]) -> Metadata:
    by_class = {
        name: {key: float(array[k]) for key, array in case.figures.items()}
        for k, name in enumerate(class_names)
        if k > 0
    }
    return {
        "name": case.name,
        "site": case.site,
        "dice": float(case.figures["dice"][1:].mean()),
        "accuracy": case.accuracy,
        "classes": by_class,
    }


def as_text(figures: Metadata) -> str:
    """Writes the figures as a table for people."""
    keys = [*_OVERLAPS, *_DISTANCES]
    rows = {**figures["classes"], "mean": figures["mean"]}
    width = max(map(len, rows))
    lines = [f"{'':{width}}  " + "".join(f"{key:>14}" for key in keys)]
    for name, row in rows.items():
        cells = (f"{row[key]['mean']:.3f} ({row[key]['std']:.3f})" for key in keys)
        lines.append(f"{name:{width}}  " + "".join(f"{cell:>14}" for cell in cells))
    cases = {"image": "images", "patient": "patients"}[figures["measure"]]
    lines.append(
        f"{figures['mean']['dice']['n']} test {cases}, mean (standard deviation); pixels told "
        f"right: {figures['accuracy']['mean']:.3f}; distances in pixels"
    )
    return "\n".join(lines)
