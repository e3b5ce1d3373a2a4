"""Batches of images with their label maps: the map travels as one more channel of its image.

So the same feeds, resident or streaming, serve segmentation.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.data.batches.resident import Normalisation
from gxdistill.data.batches.streaming import Pixels
from gxdistill.patching import patch_corners
from gxdistill.pytrees import Batch, Cohort, PatchTable

EMPTY, SHOWING = 0, 1  # Classes of crops: background alone, or something else in it.
CROPS = ("background alone", "something else")

# `(images [N, H, W, C] from 0 to 1, labels [N, H, W], key) -> both, in their shapes`
Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def with_label_maps(cohort: Cohort) -> Cohort:
    """Adds the label maps of a cohort to its images as a last channel.

    Returns:
      The cohort, images `[N, H, W, C + 1]` uint8, without masks, whose classes are `CROPS`.
    """
    assert cohort.masks is not None
    images = np.concatenate([cohort.images, cohort.masks[..., None].astype(np.uint8)], axis=-1)
    return dataclasses.replace(cohort, images=images, masks=None, class_names=CROPS)


def crop_table(cohort: Cohort, size: int, stride: int) -> PatchTable:
    """Lists the crops of all images, on a grid that covers them.

    Args:
      cohort: from `with_label_maps`.
      size: side of a crop in pixels.
      stride: between neighbouring corners in pixels.

    Returns:
      One row a crop, whose label is `EMPTY` or `SHOWING`.

    Raises:
      ValueError: no crop fits, or a number is not positive.
    """
    n = len(cohort.images)
    corners = patch_corners(cohort.images.shape[1:3], size, stride, border=True)
    rows, cols = corners.T
    labels = np.empty((n, len(corners)), np.int32)
    for i in range(n):
        # Sums over everything above and to the left: a crop's own are four of them.
        shown = np.asarray(cohort.images[i])[..., -1] > 0
        sums = np.pad(shown.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
        bottom, right = rows + size, cols + size
        area = sums[bottom, right] - sums[rows, right] - sums[bottom, cols] + sums[rows, cols]
        labels[i] = np.where(area > 0, SHOWING, EMPTY)
    _, patients = np.unique(cohort.patients, return_inverse=True)
    each = len(corners)
    return PatchTable(
        image=np.repeat(np.arange(n, dtype=np.int32), each),
        row=np.tile(rows, n).astype(np.int32),
        col=np.tile(cols, n).astype(np.int32),
        label=labels.ravel(),
        patient=np.repeat(patients.astype(np.int32), each),
    )


def to_batch(
    pixels: Pixels, key: jax.Array, *, normalise: Normalisation, augment: Augment
) -> Batch:
    """Makes a batch of crops that were drawn; jit-able.

    Args:
      pixels: their images `[N, size, size, C + 1]`.
      key: of the augmentation.
      normalise: of the C channels.
      augment: changes images and label maps.

    Returns:
      The batch, with targets `[N, size, size]`.
    """
    whole = jnp.asarray(pixels.images)
    images, labels = whole[..., :-1].astype(jnp.float32) / 255, whole[..., -1].astype(jnp.int32)
    images, labels = augment(images, labels, key)
    return Batch(normalise(images * 255), labels, jnp.asarray(pixels.patients))
