"""Divides a cohort into training and test by patient: all images of a patient go the same way."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gxdistill.data.files.manifest import few
from gxdistill.errors import UserError

SPLITS = ("train", "test")
EXTERNAL = "external"  # In place of a split: of a site that is kept out of both.


def draw_splits(
    labels: np.ndarray, patients: np.ndarray, sites: np.ndarray, *, test_share: float, seed: int
) -> np.ndarray:
    """Draws the test patients, stratified by label and site.

    A patient's label is the largest of their images', their site the first by name. Of a stratum
    of n patients, `n * test_share` rounded to the nearest, half up, are test. Patients are ranked
    by a hash of seed and id, so a patient added or mended moves hardly anyone else.

    Args:
      labels: `[N]` int.
      patients: `[N]` str ids.
      sites: `[N]` str.
      test_share: share of each stratum's patients, from 0 to 1.
      seed: another seed draws other patients.

    Returns:
      "train" or "test" for each image, `[N]` str.

    Raises:
      UserError: test patients are asked for and every stratum is too small to spare one.
    """
    images = defaultdict(list)
    for i, patient in enumerate(patients):
        images[patient].append(i)
    strata = defaultdict(list)
    for patient, rows in images.items():
        strata[max(labels[rows]), min(sites[rows])].append(patient)

    def rank(patient: str) -> bytes:
        return hashlib.sha256(f"{seed}/{patient}".encode()).digest()

    splits = np.full(len(labels), "train")
    for members in strata.values():
        n_test = int(len(members) * test_share + 0.5)
        for patient in sorted(members, key=rank)[:n_test]:
            splits[images[patient]] = "test"
    if test_share > 0 and "test" not in splits:
        raise UserError(
            f"No patient is left for the test split: {len(images)} patients in {len(strata)} "
            f"strata of label and site, {test_share:.0%} of each. Raise `test_share`, or give a "
            f"split column."
        )
    return splits


def check_splits(splits: Sequence[str], patients: Sequence[str]) -> None:
    """Refuses given splits of other names, or that part the images of a patient.

    Args:
      splits: of N images.
      patients: of the same images.

    Raises:
      UserError: a split is neither "train" nor "test", or a patient is in both.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise UserError(
            f"The split column holds {few(unknown)}; it may hold only 'train' and 'test', and "
            f"'skip'. Say what each means, as --config.data.splits.{unknown[0]}=train (or test, or "
            f"skip), or leave the column out and the split is drawn."
        )
    train, test = (
        {p for p, s in zip(patients, splits, strict=True) if s == kind} for kind in SPLITS
    )
    if train & test:
        raise UserError(
            f"{len(train & test)} patients are in both splits: {few(sorted(train & test))}. "
            f"Move all images of each into one, or leave the split column out."
        )
