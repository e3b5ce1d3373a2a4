"""A threshold for a receiver's own images, set on some of them, with its uncertainty."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill import package, storage
from gxdistill.data.files import csv_table
from gxdistill.errors import UserError
from gxdistill.evaluation import likeness, metrics, thresholds
from gxdistill.receive import calibration, predicting, reading
from gxdistill.receive.budget import DEFAULT, Budget
from gxdistill.receive.calibration import Calibration
from gxdistill.receive.networks import log_networks
from gxdistill.runtime.console import Log
from gxdistill.runtime.environment import pinned

_COLUMNS = ("image", "label")


class Scored(NamedTuple):
    """A receiver's images with what the networks make of them.

    Attributes:
      names: of the images that could be read.
      scores: theirs, `[n]`; NaN where undecidable.
      refused: why others could not be read, by name.
    """

    names: list[str]
    scores: np.ndarray
    refused: dict[str, str]


def read_labels(path: Path, class_names: Sequence[str]) -> dict[str, int]:
    """Reads the labels of images.

    Args:
      path: a CSV with the columns `image` and `label`; a label is the name of one of the last two
        classes, negative and positive, or 0 or 1.
      class_names: of the package.

    Returns:
      0 or 1 by the image's name as `predict` prints it: of its file, below the folder.

    Raises:
      UserError: the file is no such table, names an image twice, or holds another label.
    """
    header, lines = csv_table.read(path, _COLUMNS)
    if missing := [name for name in _COLUMNS if name not in header]:
        raise UserError(f"{path} has no column {missing[0]}. Write the columns image and label.")
    values = {"0": 0, "1": 1, class_names[-2]: 0, class_names[-1]: 1}
    labels: dict[str, int] = {}
    for line, cells in lines:
        row = dict(zip(header, map(str.strip, cells), strict=False))
        name, label = row.get("image", ""), row.get("label", "")
        if label not in values:
            raise UserError(
                f"{path}, line {line}: the label is {storage.shown(label)}; it must be 0 or "
                f"{class_names[-2]}, 1 or {class_names[-1]}."
            )
        if name in labels:
            raise UserError(f"{path}, line {line}: {storage.shown(name)} is there twice.")
        labels[name] = values[label]
    return labels


def _labelled(
    files: list[tuple[Path, str]], labels: dict[str, int], path: Path, log: Log
) -> list[tuple[Path, str]]:
    """Leaves images without a label out, for their scores would not be looked at."""
    names = {name for _, name in files}
    if absent := [name for name in labels if name not in names]:
        raise UserError(
            f"{path} labels {storage.shown(absent[0])}, which is none of the images. Write names "
            f"as `gxdistill predict` prints them."
        )
    kept = [file for file in files if file[1] in labels]
    if len(kept) > len(labels):
        shared = [name for _, name in kept]
        twice = next(name for name in shared if shared.count(name) > 1)
        raise UserError(
            f"Two images are called {storage.shown(twice)}, so that a label could be of either. "
            f"Name the folder above them both."
        )
    if len(kept) < len(files):
        log(f"note: {len(files) - len(kept)} images have no label, and are passed over")
    return kept


def _check_sources(
    labels: Path | None, prevalence: float | None, how: package.Decision, path: Path
) -> None:
    if labels is not None and prevalence is not None:
        raise UserError("--labels and --prevalence are two ways to set a threshold. Choose one.")
    if labels is None and prevalence is None and how.share_positive is None:
        raise UserError(
            f"{path} does not say which share of the sender's images was positive. Give the share "
            f"of yours that is likely to be, as --prevalence=0.3, or labels of some of them, as "
            f"--labels=FILE.csv."
        )


def _threshold(
    scored: Scored, labels: dict[str, int] | None, share: float | None
) -> thresholds.Threshold:
    if np.isnan(scored.scores).all():
        raise UserError("None of the images can be decided. A threshold needs some that can.")
    if labels is None:
        assert share is not None
        return thresholds.by_share(scored.scores, share)
    truth = np.array([labels[name] for name in scored.names])
    try:
        return thresholds.by_labels(scored.scores, truth)
    except metrics.UndefinedError as error:
        raise UserError(
            "The labelled images that can be decided are all of one class. Label some of the "
            "other, or give --prevalence in place of --labels."
        ) from error


def _scored(
    subject: predicting.Subject, seen: Iterable[predicting.ImagePatches], path: Path
) -> tuple[Scored, list[dict[str, np.ndarray]]]:
    """Scores images, one in memory at a time; also returns what each that was read is like."""
    names, scores, refused, features = [], [], {}, []
    for image in seen:
        if image.refused is not None:
            refused[image.name] = image.refused
            continue
        names.append(image.name)
        scores.append(predicting.score(subject, image))
        features.append(likeness.describe_images(image.pixels[None], image.probabilities[None]))
    if not names:
        name, reason = next(iter(refused.items()))
        raise UserError(f"No image fits {path}; {name}: {reason}.")
    return Scored(names, np.array(scores), refused), features


@pinned()
def calibrate(
    path: Path,
    paths: Sequence[Path],
    out: Path,
    log: Log,
    *,
    masks: Path | None = None,
    labels: Path | None = None,
    prevalence: float | None = None,
    budget: Budget = DEFAULT,
) -> tuple[Calibration, Scored]:
    """Sets a threshold on a receiver's own images, and writes it for `predict`.

    By labels, where there are some: that of the best harmonic mean of sensitivity and specificity.
    By a prevalence: that which calls so many images positive. By neither: that which calls as many
    positive as the sender's did of its training images.

    Args:
      path: file of the package, or of essential weights.
      paths: images and folders of them, as for `predict`.
      out: file to write, which must not exist.
      log: is told the progress, and where the images are of another kind than the sender's.
      masks: folder of the organ's masks, as for `predict`.
      labels: a CSV, see `read_labels`; images that it does not name are passed over.
      prevalence: share of the images that is to be positive, from 0 to 1.
      budget: the most that training may take, and one image, by an estimate.

    Returns:
      The calibration, and the scores that it was set on.

    Raises:
      UserError: the package cannot be read, decides no images or would take more than the budget;
        the labels do not fit; there is nothing to set a threshold by; `out` exists, or there is no
        image that can be decided.
    """
    subject = predicting.subject_of(path)
    how, about = subject.decision, subject.about
    _check_sources(labels, prevalence, how, path)
    if out.exists():
        raise UserError(f"{out} exists already. Remove it, or choose another --out.")
    files, shown = reading.list_files(paths, log), reading.masks_for(about, masks, log)
    truth = None
    if labels is not None:
        truth = read_labels(labels, about.class_names)
        files = _labelled(files, truth, labels, log)
    trained = predicting.networks_for(path, subject, budget, log)
    log_networks(trained, log)
    seen = predicting.each_image(trained, about, files, shown, log)
    scored, features = _scored(subject, seen, path)
    share = how.share_positive if prevalence is None else prevalence
    result = Calibration(
        **_threshold(scored, truth, share)._asdict(),
        undecidable=int(np.isnan(scored.scores).sum()),
        by="labels" if truth is not None else "sender" if prevalence is None else "prevalence",
        share=None if truth is not None else share,
        package=subject.digest,
    )
    calibration.save(out, result)
    for sentence in predicting.warnings(about, features, ()):
        log(f"warning: {sentence}")
    return result, scored


def as_text(result: Calibration, scored: Scored, sender: float) -> str:
    """Describes a calibration for people, beside the sender's threshold."""
    ways = {
        "labels": "by the best harmonic mean of sensitivity and specificity on labelled images",
        "prevalence": "so that a share of {share:.3g} is positive, as you said",
        "sender": "so that a share of {share:.3g} is positive, as at the sender's",
    }
    share = thresholds.share_positive(scored.scores, sender)
    return "\n".join(
        [
            f"tau {result.tau:.4g} (95% interval {result.low:.4g} to {result.high:.4g})",
            f"set on {result.images} images {ways[result.by].format(share=result.share)}",
            f"undecidable: {result.undecidable}",
            f"the sender's tau: {sender:.4g}, which calls a share of {share:.3g} of them positive",
        ]
    )
