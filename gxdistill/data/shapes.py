"""Draws tissue that never was, with one structure to be found: what a segmenter may start from.

Maps of random regions in random greys, as Billot et al. 2023, https://arxiv.org/abs/2107.09559,
draw them for brains; here no label map of a patient is behind them. Of the structure it is said
only that it is round or long, lies near the middle, and is of one class where it is large and of
the other where it is small. Weights that learned this know edges, textures and places, and no
patient.
"""

import numpy as np
from scipy import ndimage

from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort

CLASSES = ("background", "large", "small")
_UNIT = 1 / 48  # Of a side: lengths below are in pixels of images of 48.
_DARK, _LIGHT = (20.0, 60.0), (170.0, 240.0)
_LARGE, _SMALL = (5.5, 8.5), (3.0, 5.5)  # Radii.
_MEAN, _SPREAD = 128.0, 42.0  # Of an image's greys, as if normalised by itself.


def shapes_cohort(seed: int, *, images: int, size: int, train_share: float = 0.9) -> Cohort:
    """Draws a cohort of one image a patient; the same seed draws the same.

    Args:
      seed: of all that is drawn.
      images: N.
      size: side of an image in pixels, at least 16.
      train_share: of the images, the first ones.

    Returns:
      Images `[N, size, size, 1]` and masks of `CLASSES`, `[N, size, size]`, both uint8.

    Raises:
      UserError: a split would be empty.
    """
    trained = round(train_share * images)
    if not 0 < trained < images:
        raise UserError(
            f"{images} shapes with a train share of {train_share} leave a split without any. Draw "
            f"more, or change data.train_share."
        )
    rng = np.random.default_rng(seed)
    drawn, masks = zip(*(_draw(rng, size) for _ in range(images)), strict=True)
    names = np.array([f"shape-{i:05d}" for i in range(images)])
    return Cohort(
        images=np.stack(drawn)[..., None],
        masks=np.stack(masks),
        labels=np.zeros(images, np.int32),
        patients=names,
        sites=np.full(images, "drawn"),
        splits=np.where(np.arange(images) < trained, "train", "test"),
        names=names,
        class_names=("irrelevant",),
    )


def _draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws an image and its mask, `[size, size]` uint8 each."""
    unit = size * _UNIT
    regions = np.stack([_field(rng, size, rng.uniform(3, 7)) for _ in range(rng.integers(3, 7))])
    image = rng.uniform(30, 230, len(regions))[regions.argmax(0)]
    mask = np.zeros((size, size), np.uint8)
    if rng.random() < 0.8:
        is_large = rng.random() < 0.5
        radius = rng.uniform(*(_LARGE if is_large else _SMALL))
        distance = _distance(rng, size)
        inside = distance < radius
        rim = (distance < radius + rng.uniform(0.8, 2)) & ~inside
        image[rim] = rng.uniform(*(_DARK if rng.random() < 0.5 else _LIGHT))
        image[inside] = rng.uniform(70, 150)
        mask[inside] = 1 if is_large else 2
    image = ndimage.gaussian_filter(image, unit * rng.uniform(0.5, 1.1))
    image += rng.normal(size=image.shape) * rng.uniform(2, 10) + 8 * _field(rng, size, 2)
    seen = np.zeros(image.shape, bool)  # The rest is what an image is padded with.
    height, width = rng.integers(round(34 * unit), round(46 * unit), 2, endpoint=True)
    top, left = (size - height) // 2, (size - width) // 2
    seen[top : top + height, left : left + width] = True
    image = np.where(seen, image, image.mean() * rng.uniform(0.2, 0.6))
    grey = (image - image.mean()) / max(image.std(), 1e-6) * _SPREAD + _MEAN
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8), mask * seen


def _field(rng: np.random.Generator, size: int, width: float) -> np.ndarray:
    """Draws a smooth field of spread 1; `width` of its blur."""
    field = ndimage.gaussian_filter(rng.normal(size=(size, size)), width * size * _UNIT)
    return field / max(field.std(), 1e-9)


def _distance(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws a distance from somewhere near the middle, long in a direction and uneven."""
    rows, cols = (np.mgrid[:size, :size] + 0.5) / (size * _UNIT) - 24
    row, col = rng.uniform(-9, 9, 2)
    stretch, angle = rng.uniform(1, 1.8) ** 0.5, rng.uniform(0, np.pi)
    along = (cols - col) * np.cos(angle) + (rows - row) * np.sin(angle)
    across = (rows - row) * np.cos(angle) - (cols - col) * np.sin(angle)
    return np.hypot(along / stretch, across * stretch) + rng.uniform(0.3, 1.2) * _field(
        rng, size, 3
    )
