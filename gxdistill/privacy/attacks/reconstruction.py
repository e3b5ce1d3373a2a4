"""Do distilled images show real ones? The nearest real image, beside that of a hold-out cohort.

Small distances alone say little: patches of one organ are alike. What counts is whether distilled
images lie nearer to the patients that they were made of than to as many others. Sets that pass such
tests still fall to attacks on membership (https://arxiv.org/abs/2505.01524): this is a smoke test.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.evaluation import similarity

_WINDOW = 7  # Pixels of a side of SSIM's windows, where an image has as many.
_FILTERS, _SIDE, _CELLS = 32, 5, 4  # Of the random features.


def _standardised(images: jax.Array) -> jax.Array:
    """Brings each image to mean 0 and deviation 1: a copy at another contrast is a copy."""
    flat = images.reshape(len(images), -1)
    spread = jnp.maximum(flat.std(axis=1, keepdims=True), 1e-6)
    return (flat - flat.mean(axis=1, keepdims=True)) / spread


def _apart(a: jax.Array, b: jax.Array) -> jax.Array:
    """Root mean square differences of rows, `[m, D]` and `[n, D]` to `[m, n]`; good to 1e-2.

    By products, which are quick and leave 1e-3 of equal rows of deviation 1 in float32.
    """
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST) / a.shape[1]
    squares = jnp.square(a).mean(axis=1)[:, None] + jnp.square(b).mean(axis=1)
    return jnp.sqrt(jnp.maximum(squares - 2 * products, 0))


def in_pixels(distilled: jax.Array, real: jax.Array) -> jax.Array:
    """Root mean square difference of images that were each brought to mean 0 and deviation 1.

    Args:
      distilled: `[m, H, W, C]` float, any unit.
      real: `[n, H, W, C]` float.

    Returns:
      `[m, n]`, from 0, the same image but for brightness and contrast, to 2.
    """
    return _apart(_standardised(distilled), _standardised(real))


def in_structure(distilled: jax.Array, real: jax.Array) -> jax.Array:
    """1 - SSIM, Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, of standardised images.

    Windows are squares of 7 pixels, or as many as an image has, of equal weights and only whole
    ones; the range L, of which the constants are shares, is 4 deviations.

    Args and returns are those of `in_pixels`; values go from 0 to 2.
    """
    a, b = (_standardised(x).reshape(x.shape) for x in (distilled, real))
    side = min(_WINDOW, *a.shape[1:3])

    def means(x: jax.Array) -> jax.Array:
        window = (1, side, side, 1)
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1,) * 4, "VALID") / side**2

    mean_b, square_b = means(b), means(jnp.square(b))
    var_b = square_b - jnp.square(mean_b)

    def of_one(x: jax.Array) -> jax.Array:
        mean_x, square_x, product = means(x[None]), means(jnp.square(x[None])), means(x * b)
        cross, var_x = product - mean_x * mean_b, square_x - jnp.square(mean_x)
        factors = similarity.terms((mean_x, mean_b), (var_x, var_b), cross, span=4)
        return 1 - (factors[0] * factors[1]).mean(axis=(1, 2, 3))

    return jax.lax.map(of_one, a)


def features(images: jax.Array) -> jax.Array:
    """Describes images by random convolutions, which no patient's image chose.

    32 fixed Gaussian filters of 5 pixels, rectified, averaged over 4 by 4 cells: what is alike in
    texture but a little shifted stays near, after Saxe et al. 2011, "On random weights and
    unsupervised feature learning".

    Args:
      images: `[n, H, W, C]` float.

    Returns:
      `[n, D]`, of length 1.
    """
    x = _standardised(images).reshape(images.shape)
    shape = (_SIDE, _SIDE, images.shape[-1], _FILTERS)
    filters = jax.random.normal(jax.random.key(0, impl="threefry2x32"), shape)
    filters -= filters.mean(axis=(0, 1), keepdims=True)  # Blind to brightness.
    layout = ("NHWC", "HWIO", "NHWC")
    seen = jax.nn.relu(
        jax.lax.conv_general_dilated(x, filters, (1, 1), "SAME", dimension_numbers=layout)
    )
    rows, cols = (min(_CELLS, side) for side in images.shape[1:3])
    size = tuple(side // n for side, n in zip(images.shape[1:3], (rows, cols), strict=True))
    seen = seen[:, : size[0] * rows, : size[1] * cols]
    cells = seen.reshape(len(x), rows, size[0], cols, size[1], _FILTERS).mean(axis=(2, 4))
    flat = cells.reshape(len(x), -1)
    return flat / jnp.maximum(jnp.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def in_features(distilled: jax.Array, real: jax.Array) -> jax.Array:
    """Distance of `features`; args and returns as of `in_pixels`, values from 0 to sqrt(2)."""
    a, b = features(distilled), features(real)
    return _apart(a, b) * np.sqrt(a.shape[1])


def nearer_to_members(distances: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Tells of each distilled image how much nearer the nearest member is than the nearest other.

    Of both groups there should be as many, for the nearest of more is nearer.

    Args:
      distances: of each distilled image to the nearest image of each patient, `[m, P]`.
      members: of which it was made, `[P]` bool.

    Returns:
      Distance to the nearest member over that to the nearest other, `[m]`; 0 of a copy, about 1
      where nothing is remembered.

    Raises:
      ValueError: there is no member, or no other.
    """
    if not members.any() or members.all():
        raise ValueError("Of members and others, one is empty. Pass distances to both.")
    member, other = distances[:, members].min(axis=1), distances[:, ~members].min(axis=1)
    return member / np.maximum(other, 1e-12)
