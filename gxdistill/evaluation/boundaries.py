"""How far the boundaries of masks lie from the true ones; SciPy's distance transform in float64.

The boundary of a class are its pixels of which a neighbour along an axis is of another class or
lies outside. A class that neither mask holds is at distance 0; where only one of them holds it,
every pixel counts as far off as the image's diagonal is long.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gxdistill import _check

_FAR_SHARE = 95  # Percentile of the distances, in place of the largest one.


class Boundaries(NamedTuple):
    """Distances between boundaries, each `[N, K]` float64.

    Attributes:
      hd95: the 95th percentile of the distances from one boundary to the other, of both directions
        the larger, in the unit of `spacing`.
      asd: the mean of the distances of both directions.
      surface_dice: the share of both boundaries within the tolerance of the other.
    """

    hd95: np.ndarray
    asd: np.ndarray
    surface_dice: np.ndarray


def compare(
    predicted: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = 1.0,
) -> Boundaries:
    """Compares the boundaries of each image, or volume, and class.

    Args:
      predicted: class of each pixel, `[N, H, W]` or `[N, D, H, W]` integer or bool.
      labels: true class of each pixel, of the same shape.
      num_classes: K.
      spacing: of pixels along each axis but the first; None stands for 1.
      tolerance: distance that counts as met, in the unit of `spacing`.

    Returns:
      The distances.

    Raises:
      ValueError: the shapes differ, or the spacing is of other axes.

    Example:
      compare(probabilities.argmax(-1), masks, 3).hd95[:, 1:].mean()  # without the background

    References:
      Huttenlocher et al., IEEE TPAMI 15(9):850, 1993, https://doi.org/10.1109/34.232073; Nikolov et
      al. 2018, https://arxiv.org/abs/1809.04430, for the surface Dice.
    """
    _check.positive(num_classes=num_classes)
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    axes = labels.ndim - 1
    if predicted.shape != labels.shape or axes not in (2, 3):
        raise ValueError(
            f"Predicted masks of shape {predicted.shape} and true ones of {labels.shape} do not "
            f"fit: both must be [N, H, W] or [N, D, H, W]. Give one image as `mask[None]`."
        )
    steps = (1.0,) * axes if spacing is None else tuple(spacing)
    if len(steps) != axes:
        raise ValueError(f"`spacing` is {spacing}; give the spacing of each of the {axes} axes.")
    figures = np.empty((3, len(labels), num_classes))
    for n, k in np.ndindex(len(labels), num_classes):
        figures[:, n, k] = _figures(predicted[n] == k, labels[n] == k, steps, tolerance)
    return Boundaries(*figures)


def _figures(
    first: np.ndarray, second: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> tuple[float, float, float]:
    if not first.any() and not second.any():
        return 0.0, 0.0, 1.0
    if not first.any() or not second.any():
        diagonal = float(np.linalg.norm(np.multiply(first.shape, spacing)))
        return diagonal, diagonal, 0.0
    first, second = _cropped(first, second)
    there, back = distances(first, second, spacing), distances(second, first, spacing)
    both = np.concatenate([there, back])
    far = max(float(np.percentile(d, _FAR_SHARE)) for d in (there, back))
    return far, float(both.mean()), float((both <= tolerance).mean())


def _cropped(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts both to the box that holds them, with a margin that keeps the image's edge apart."""
    places = np.argwhere(first | second)
    ends = zip(places.min(axis=0), places.max(axis=0), strict=True)
    box = tuple(slice(low, high + 1) for low, high in ends)
    return np.pad(first[box], 1), np.pad(second[box], 1)


def boundary(mask: np.ndarray) -> np.ndarray:
    """Finds the pixels of a mask, bool of any shape, that have a neighbour outside of it."""
    from scipy import ndimage

    return mask & ~ndimage.binary_erosion(mask)


def distances(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Measures how far each pixel of one boundary lies from the nearest of the other.

    Args:
      first: mask, bool of any shape, that is not empty.
      second: mask of the same shape, that is not empty.
      spacing: of pixels along each axis.

    Returns:
      `[number of the first boundary's pixels]` float64.
    """
    from scipy import ndimage

    away = ndimage.distance_transform_edt(~boundary(second), sampling=tuple(spacing))
    return away[boundary(first)]
