"""Reads a stack of volumes with label maps as slices: hippocampi of the Medical Decathlon.

Simpson et al. 2019, https://arxiv.org/abs/1902.09063.
"""

import io
import lzma
from pathlib import Path

import numpy as np

from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort

IMAGES, LABELS = "images_u8.npy.xz", "labels_meta.npz"
CLASSES = ("background", "anterior", "posterior")
_MAX_BYTES = 1 << 30  # Of the volumes as they are unpacked.
_AXIS = 2  # Of [subject, x, y, z]: y, along the hippocampus.


def slices(root: Path, *, limit: int | None = None) -> Cohort:
    """Reads the slices across the long axis of each hippocampus, in their order.

    Slices that a volume was padded with are left out; rows and columns are padded to a square.

    Args:
      root: folder of `images_u8.npy.xz`, volumes `[n, X, Y, Z]` uint8, and `labels_meta.npz`.
      limit: number of subjects of either split that are read; None reads all.

    Returns:
      Images `[N, S, S, 1]`, masks of three classes `[N, S, S]`; a subject is a patient.

    Raises:
      UserError: the files are missing or damaged.
    """
    volumes, labels, ids, boxes, is_test = _read(root)
    side = max(volumes.shape[1], volumes.shape[3])
    images, masks, names, owners, splits = [], [], [], [], []
    taken = {True: 0, False: 0}
    for volume, label, name, box, test in zip(volumes, labels, ids, boxes, is_test, strict=True):
        if limit is not None and taken[test] >= limit:
            continue
        taken[test] += 1
        begin, length = int(box[1]), int(box[4])
        for y in range(begin, begin + length):
            images.append(_square(np.take(volume, y, _AXIS - 1), side))
            masks.append(_square(np.take(label, y, _AXIS - 1), side))
            names.append(f"{name}/{y - begin:02}")
            owners.append(name)
            splits.append("test" if test else "train")
    n = len(images)
    return Cohort(
        images=np.stack(images)[..., None],
        masks=np.stack(masks),
        labels=np.zeros(n, np.int32),
        patients=np.array(owners),
        sites=np.full(n, "unknown"),
        splits=np.array(splits),
        names=np.array(names),
        class_names=("irrelevant",),
    )


def _read(root: Path) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray, list[bool]]:
    """Returns volumes and labels `[n, X, Y, Z]`, ids, boxes `[n, 6]`, and which are for testing."""
    try:
        with lzma.open(root / IMAGES) as file:
            content = file.read(_MAX_BYTES)
        volumes = np.load(io.BytesIO(content), allow_pickle=False)
        with np.load(root / LABELS, allow_pickle=False) as file:
            labels, ids = file["labels"], file["ids"]
            boxes, is_test = file["offset_shape"], file["is_test"]
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is missing. Name by data.path the folder with {IMAGES} and {LABELS}."
        ) from error
    except (OSError, EOFError, KeyError, ValueError, lzma.LZMAError) as error:
        raise UserError(
            f"The volumes in {root} cannot be read ({type(error).__name__}). Get fresh copies of "
            f"{IMAGES} and {LABELS}."
        ) from error
    n = len(volumes)
    sound = volumes.ndim == 4 and volumes.dtype == np.uint8 and labels.shape == volumes.shape
    sound = sound and {len(ids), len(boxes), len(is_test)} == {n} and boxes.shape == (n, 6)
    sound = sound and labels.max() < len(CLASSES) and (boxes >= 0).all()
    if not sound or (boxes[:, 1] + boxes[:, 4] > volumes.shape[_AXIS]).any():
        raise UserError(f"{IMAGES} and {LABELS} in {root} do not fit each other. Get fresh copies.")
    return volumes, labels, [str(i) for i in ids.tolist()], boxes, [bool(t) for t in is_test]


def _square(plane: np.ndarray, side: int) -> np.ndarray:
    below, right = side - plane.shape[0], side - plane.shape[1]
    return np.pad(plane, ((0, below), (0, right)))
