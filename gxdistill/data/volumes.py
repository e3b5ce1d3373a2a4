"""Volumes with the labels of their voxels, as stacks of 2-D slices, one volume a patient."""

import hashlib
import io
import lzma
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError

IMAGES_FILE, LABELS_FILE = "images_u8.npy.xz", "labels_meta.npz"
_MAX_PACKED, _MAX_BYTES = 1 << 28, 1 << 31


class Volumes(NamedTuple):
    """Volumes of one size.

    Attributes:
      images: `[P, S, H, W]` uint8: patients, slices, rows, columns.
      labels: class of each voxel, `[P, S, H, W]` uint8, 0 is the background.
      patients: `[P]` str.
      is_test: `[P]` bool.
      class_names: of the K classes.
    """

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    is_test: np.ndarray
    class_names: tuple[str, ...]

    def select(self, rows: np.ndarray) -> "Volumes":
        """Returns the volumes of the given rows."""
        images, labels, patients, is_test, names = self
        return Volumes(images[rows], labels[rows], patients[rows], is_test[rows], names)

    @property
    def digest(self) -> str:
        """SHA-256 of all that they hold."""
        whole = hashlib.sha256(repr((self.class_names, self.images.shape)).encode())
        for array in (self.images, self.labels, self.is_test):
            whole.update(np.ascontiguousarray(array).data)
        whole.update("\n".join(map(str, self.patients)).encode())
        return whole.hexdigest()


def read(folder: Path, class_names: tuple[str, ...]) -> Volumes:
    """Reads a set of volumes of one size.

    The folder holds `images_u8.npy.xz`, an array `[P, X, S, Z]` uint8, and `labels_meta.npz` with
    `labels` of that shape, `ids` and `is_test`. Slices are cut across the second axis.

    Args:
      folder: of both files.
      class_names: of the K classes, the background first.

    Raises:
      UserError: a file is missing, too large or something else, or a label has no name.
    """
    images = _unpack(folder / IMAGES_FILE)
    path = folder / LABELS_FILE
    content = storage.read_bytes(path, _MAX_PACKED)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as table:
            labels, ids, is_test = (table[name] for name in ("labels", "ids", "is_test"))
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise UserError(f"{path} holds no labels, ids and is_test: {error}.") from error
    if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape:
        raise UserError(
            f"{folder}: images of {images.dtype} {images.shape} and labels of {labels.shape}; both "
            f"must be [patients, x, y, z], the images uint8."
        )
    if not len(ids) == len(is_test) == len(images) or labels.max() >= len(class_names):
        raise UserError(
            f"{folder}: {len(images)} volumes with {len(ids)} ids, and classes up to "
            f"{labels.max()} with {len(class_names)} names. Each needs its own."
        )
    images, labels = (np.moveaxis(array, 2, 1).astype(np.uint8) for array in (images, labels))
    return Volumes(images, labels, ids.astype(str), is_test.astype(bool), class_names)


def _unpack(path: Path) -> np.ndarray:
    unpacker = lzma.LZMADecompressor()
    try:
        content = unpacker.decompress(storage.read_bytes(path, _MAX_PACKED), _MAX_BYTES)
        if not unpacker.eof:
            raise UserError(f"{path} is cut short, or holds more than {_MAX_BYTES} bytes.")
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (lzma.LZMAError, ValueError, EOFError) as error:
        raise UserError(f"{path} holds no array packed by xz: {error}.") from error


def phantoms(patients: int, size: int, seed: int, *, test_share: float = 0.25) -> Volumes:
    """Draws volumes of a bright body in which two neighbouring structures lie.

    Args:
      patients: P.
      size: side of a slice in pixels; there are size / 4 slices.
      seed: of all that is drawn.
      test_share: of the patients, the last ones.

    Returns:
      Volumes of three classes.
    """
    rng = np.random.default_rng(seed)
    depth = max(4, size // 4)
    z, y, x = np.mgrid[:depth, :size, :size]
    z, y, x = (axis / (count - 1) * 2 - 1 for axis, count in ((z, depth), (y, size), (x, size)))
    images = np.empty((patients, depth, size, size), np.uint8)
    labels = np.zeros_like(images)
    for row in range(patients):
        centre, turn = rng.uniform(-0.2, 0.2, 3), rng.uniform(-0.5, 0.5)
        radii = rng.uniform(0.8, 1.2, 3)
        v, u = y - centre[1], x - centre[2]
        along, across = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        height = (z - centre[0]) / (0.8 * radii[0])
        form = height**2 + (along / (0.55 * radii[1])) ** 2 + (across / (0.3 * radii[2])) ** 2
        labels[row] = np.where(form < 1, np.where(along > 0, 1, 2), 0)
        body = y**2 + x**2 < rng.uniform(0.7, 1.0)
        texture = sum(
            np.sin(rng.uniform(1, 6) * axis + rng.uniform(0, 6)) for axis in (x, y, z, x + y)
        )
        level = body * (90 + 12 * texture) + np.choose(labels[row], (0, 55, 40))
        noise = rng.normal(0, 6, level.shape)
        images[row] = np.clip(level + noise, 0, 255).astype(np.uint8)
    is_test = np.arange(patients) >= patients - max(1, round(test_share * patients))
    names = np.array([f"phantom_{row:04d}" for row in range(patients)])
    return Volumes(images, labels, names, is_test, ("background", "front", "back"))
