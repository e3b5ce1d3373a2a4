"""Grey values of an image, normalised by the image itself: no other machine's levels decide.

Intensities of radiographs have no unit: detector, exposure and post-processing set them. What is
done here depends on one image (and the organ's mask) alone, so that a receiver can do the same.
"""

import numpy as np

from gxdistill import _check

# By what an image is normalised: nothing but the cohort's mean, all of the image, or its organ.
WAYS = ("cohort", "image", "image_histogram", "organ", "organ_histogram")

_DARK, _BRIGHT = 4, 251  # Levels up to and from which pixels at the border are background.
_CENTRE, _LEVELS_PER_STD = 128, 42  # 8 bits hold three standard deviations on either side.
_EXTREME = 3.0  # Standard deviations beyond which normal scores are cut.


def needs_mask(way: str) -> bool:
    """Whether images are normalised by their organ, which a mask must show."""
    return way.startswith("organ")


def background(image: np.ndarray) -> np.ndarray:
    """Finds black or white areas that touch the border: letter-box bands, collimator, padding.

    Args:
      image: `[H, W]` uint8.

    Returns:
      `[H, W]` bool, True in the background.
    """
    from scipy import ndimage

    frame = np.zeros(image.shape, bool)
    for extreme in (image <= _DARK, image >= _BRIGHT):
        areas, _ = ndimage.label(extreme)
        edge = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
        frame |= np.isin(areas, np.unique(edge[edge > 0]))
    return frame


def normalise(image: np.ndarray, mask: np.ndarray | None, way: str) -> np.ndarray:
    """Normalises the grey values of one image by itself.

    The values of the image without its background, or of its organ, get mean 128 and a standard
    deviation of 42 levels, by a straight line ("image", "organ"), or by their ranks
    ("image_histogram", "organ_histogram"): the histogram becomes a normal distribution, which
    undoes any rising curve that a machine laid over the grey values. In the spirit of Nyul & Udupa
    1999, https://doi.org/10.1002/(SICI)1522-2594(199912)42:6<1072::AID-MRM11>3.0.CO;2-M, with the
    normal distribution as the standard histogram.

    Args:
      image: `[H, W]` uint8.
      mask: `[H, W]` bool, True in the organ; only ways by the organ look at it.
      way: one of `WAYS`; "cohort" leaves the image as it is.

    Returns:
      `[H, W]` uint8.

    Raises:
      ValueError: the way is unknown, or there is no pixel to go by.
    """
    _check.one_of("way", way, WAYS)
    if way == "cohort":
        return image
    if needs_mask(way) and (mask is None or not mask.any()):
        raise ValueError(f"No mask shows the organ, which the way {way!r} goes by.")
    region = mask if needs_mask(way) else ~background(image)
    # An image that is background alone is judged by all of it.
    levels = image[region] if region is not None and region.any() else image
    counts = np.bincount(levels.ravel(), minlength=256)
    to_level = _by_ranks(counts) if way.endswith("histogram") else _by_moments(counts)
    return np.clip(np.rint(to_level), 0, 255).astype(np.uint8)[image]


def _by_moments(counts: np.ndarray) -> np.ndarray:
    levels = np.arange(256)
    mean = np.average(levels, weights=counts)
    std = np.sqrt(np.average(np.square(levels - mean), weights=counts))
    return _CENTRE + _LEVELS_PER_STD * (levels - mean) / max(std, 1.0)


def _by_ranks(counts: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    below = np.cumsum(counts) - counts
    share = (below + counts / 2) / counts.sum()  # Equal values share the middle of their ranks.
    with np.errstate(divide="ignore"):
        scores = np.clip(ndtri(share), -_EXTREME, _EXTREME)
    return _CENTRE + _LEVELS_PER_STD * scores
