"""How well masks of classes overlap the true ones; NumPy in float64.

For each image and class: P are the pixels that were predicted as the class, T those that truly are.
A class that neither holds was told right, and counts 1; one that only one of them holds counts 0.
"""

import numpy as np

from gxdistill import _check


def _counts(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts |P and T|, |P| and |T| in pixels, each `[N, K]` int64."""
    _check.positive(num_classes=num_classes)
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != labels.shape or labels.ndim != 3:
        raise ValueError(
            f"Predicted masks of shape {predicted.shape} and true ones of {labels.shape} do not "
            f"fit: both must be [N, H, W]. Give one image as `mask[None]`."
        )
    for name, masks in (("predicted", predicted), ("labels", labels)):
        if masks.dtype.kind not in "biu":
            raise ValueError(
                f"`{name}` is of {masks.dtype}; a mask holds class indices. Take the `argmax` over "
                f"the classes, or a threshold, first."
            )
        if masks.size and (masks.min() < 0 or masks.max() >= num_classes):
            raise ValueError(
                f"`{name}` holds {masks.min()} .. {masks.max()}; classes go from 0 to "
                f"{num_classes - 1}. Raise `num_classes`, or leave the others out."
            )
    counts = np.empty((3, len(labels), num_classes), np.int64)
    for k in range(num_classes):  # [N, H, W, K] at once would take K times the masks' memory.
        p, t = predicted == k, labels == k
        counts[:, :, k] = [np.count_nonzero(x, axis=(1, 2)) for x in (p & t, p, t)]
    both, of_predicted, of_true = counts
    return both, of_predicted, of_true


def _ratio(part: np.ndarray, whole: np.ndarray, both_empty: np.ndarray) -> np.ndarray:
    return np.where(both_empty, 1.0, part / np.maximum(whole, 1))


def dice(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Computes 2 |P and T| / (|P| + |T|) of each image and class: Dice 1945, Sorensen 1948.

    Also called F1 score. Of a class that neither mask holds it is 1, of one that only one of them
    holds 0.

    Args:
      predicted: class of each pixel, `[N, H, W]` integer or bool.
      labels: true class of each pixel, `[N, H, W]` integer or bool.
      num_classes: K.

    Returns:
      Shares from 0 to 1, `[N, K]` float64.

    Raises:
      ValueError: the shapes differ or are not `[N, H, W]`, a mask is not of integers, or an index
        is not among 0 .. K - 1.

    Example:
      dice(probabilities.argmax(-1), masks, 3)[:, 1:].mean()  # without the background

    References:
      Dice, Ecology 26(3):297, https://doi.org/10.2307/1932409.
    """
    both, p, t = _counts(predicted, labels, num_classes)
    return _ratio(2 * both, p + t, p + t == 0)


def jaccard(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Computes |P and T| / |P or T| of each image and class, the intersection over union.

    It is d / (2 - d) of the Dice coefficient d. Of a class that neither mask holds it is 1, of one
    that only one of them holds 0.

    Args:
      predicted: see `dice`.
      labels: see `dice`.
      num_classes: K.

    Returns:
      Shares from 0 to 1, `[N, K]` float64.

    Raises:
      ValueError: as `dice`.

    References:
      Jaccard, New Phytologist 11(2):37, 1912, https://doi.org/10.1111/j.1469-8137.1912.tb05611.x.
    """
    both, p, t = _counts(predicted, labels, num_classes)
    return _ratio(both, p + t - both, p + t == 0)


def recall(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Computes |P and T| / |T| of each image and class, the share of its pixels that is found.

    The mean over the classes is the "mean class accuracy" of the field. What was wrongly taken for
    the class does not count, so that it goes with `jaccard`, not alone. Of a class that neither
    mask holds it is 1, of one that only one of them holds 0.

    Args:
      predicted: see `dice`.
      labels: see `dice`.
      num_classes: K.

    Returns:
      Shares from 0 to 1, `[N, K]` float64.

    Raises:
      ValueError: as `dice`.

    References:
      Long et al. 2015, https://arxiv.org/abs/1411.4038, section 5.
    """
    both, p, t = _counts(predicted, labels, num_classes)
    return _ratio(both, t, p + t == 0)


def pixel_accuracy(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Computes the share of each image's pixels whose class was told right, background and all.

    Args:
      predicted: class indices, `[N, H, W]`.
      labels: true ones, of the same shape.

    Returns:
      Shares from 0 to 1, `[N]` float64.

    Raises:
      ValueError: the shapes differ, or the images have no pixels.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != labels.shape or labels.ndim != 3 or not all(labels.shape[1:]):
        raise ValueError(
            f"Predicted masks of shape {predicted.shape} and true ones of {labels.shape} do not "
            f"fit: both must be [N, H, W], with pixels. Give one image as `mask[None]`."
        )
    return np.asarray((predicted == labels).mean((1, 2)))
