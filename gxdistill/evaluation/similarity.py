"""How alike two images look: SSIM and MS-SSIM, with the constants of their papers.

Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, and Wang, Simoncelli and Bovik 2003,
https://doi.org/10.1109/ACSSC.2003.1292216.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

CONSTANTS = (0.01, 0.03)  # K1 and K2, shares of the range of levels.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Of the scales, the finest first.
_BISECTIONS = 10
_SIDE, _DEVIATION = 11, 1.5  # Pixels, of the Gaussian window.


def terms(
    means: tuple[jax.Array, jax.Array],
    variances: tuple[jax.Array, jax.Array],
    covariance: jax.Array,
    span: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Computes the two factors of SSIM at each window of two images x and y.

    Args:
      means: mu_x and mu_y.
      variances: sigma_x^2 and sigma_y^2.
      covariance: sigma_xy.
      span: L, the range of levels.

    Returns:
      l = (2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1) and
      c s = (2 sigma_xy + C2) / (sigma_x^2 + sigma_y^2 + C2).
    """
    c1, c2 = ((share * span) ** 2 for share in CONSTANTS)
    x, y = means
    luminance = (2 * x * y + c1) / (jnp.square(x) + jnp.square(y) + c1)
    return luminance, (2 * covariance + c2) / (variances[0] + variances[1] + c2)


def _blur(images: jax.Array) -> jax.Array:
    """Averages by the Gaussian window, whole windows only: `[N, H, W]` to `[N, H - 10, W - 10]`."""
    at = np.arange(_SIDE) - _SIDE // 2
    window = np.exp(-(at**2) / (2 * _DEVIATION**2))
    window = (window / window.sum()).astype(np.float32)
    x = images[..., None]
    for shape in ((_SIDE, 1, 1, 1), (1, _SIDE, 1, 1)):
        x = jax.lax.conv_general_dilated(
            x,
            window.reshape(shape),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
    return x[..., 0]


@jax.jit
def _factors(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Averages over windows SSIM, and its second factor: `[N]` each."""
    means = _blur(a), _blur(b)
    squares = (_blur(x * x) - mean * mean for x, mean in zip((a, b), means, strict=True))
    covariance = _blur(a * b) - means[0] * means[1]
    luminance, structure = terms(means, (next(squares), next(squares)), covariance)
    return (luminance * structure).mean((1, 2)), structure.mean((1, 2))


def scales_of(shape: tuple[int, ...]) -> int:
    """Returns how many scales images of `(H, W)` have, of which each holds a whole window.

    Raises:
      ValueError: not one.
    """
    scales = int(np.log2(min(shape) / _SIDE)) + 1 if min(shape) >= _SIDE else 0
    if not scales:
        raise ValueError(
            f"Images of {shape[0]}x{shape[1]} pixels hold no window of {_SIDE}x{_SIDE}. Enlarge "
            f"or pad them first."
        )
    return min(scales, len(WEIGHTS))


def ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes SSIM of pairs of images with levels from 0 to 1: `[N, H, W]` twice, to `[N]`.

    Raises:
      ValueError: a side is shorter than the window of 11 pixels.
    """
    scales_of(a.shape[1:])
    return _factors(a, b)[0]


def ms_ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes MS-SSIM of pairs of images with levels from 0 to 1.

    The paper's five scales need 176 pixels a side. Smaller images have as many of the finest ones
    as hold a whole window, and the weights of these are brought to a sum of 1. Negative factors,
    which have no power, count as 0, as is usual.

    Args:
      a: `[N, H, W]` float.
      b: of the same shape.

    Returns:
      `[N]`, from 0 to 1, which is that of equal images.

    Raises:
      ValueError: a side is shorter than the window of 11 pixels.
    """
    scales = scales_of(a.shape[1:])
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    result = jnp.ones(len(a))
    for scale, weight in enumerate(weights.tolist()):
        whole, structure = _factors(a, b)
        factor = whole if scale == scales - 1 else structure
        result *= jnp.maximum(factor, 0) ** weight
        a, b = (_halved(x) for x in (a, b))
    return result


def _halved(images: jax.Array) -> jax.Array:
    """Averages squares of 2 pixels; an odd last row or column is dropped."""
    rows, columns = (side // 2 for side in images.shape[1:])
    whole = images[:, : 2 * rows, : 2 * columns]
    return whole.reshape(-1, rows, 2, columns, 2).mean((2, 4))


def size_of_similarity(
    change: Callable[[float], jax.Array], images: jax.Array, aim: float, most: float
) -> float:
    """Finds the size of a change by which images keep a mean SSIM.

    Args:
      change: gives the images of a size, `[N, H, W]`; the larger, the less alike.
      images: unchanged, `[N, H, W]`, from 0 to 1.
      aim: mean SSIM.
      most: largest size.

    Returns:
      The size, by bisection; `most` where even that leaves images more alike.
    """
    low, high = 0.0, most
    if float(ssim(change(most), images).mean()) > aim:
        return most
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        alike = float(ssim(change(middle), images).mean()) > aim
        low, high = (middle, high) if alike else (low, middle)
    return (low + high) / 2
