"""What a hospital could send in place of mixtures: images under noise, or deformed.

Both are measured beside mixing. Noise is not undone: the network is trained to see through it. A
deformation is undone in the segmentation, by the hospital that alone knows its field, an idea of
Kim et al. 2020, https://arxiv.org/abs/2011.12835; the law of the fields is ours.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

_WAVES = 3  # Half waves of a field along an axis.
_INVERSION = 20  # Steps of the inverse's fixed point.


def add_noise(key: jax.Array, images: jax.Array, deviation: jax.Array) -> jax.Array:
    """Adds Gaussian noise to images, `[N, ...]`; the sum is not clipped, which would only hide."""
    return images + deviation * jax.random.normal(key, images.shape)


def draw_field(key: jax.Array, count: int, shape: tuple[int, int], size: jax.Array) -> jax.Array:
    """Draws smooth displacements that vanish at the borders: a few sines of random weights.

    Args:
      key: of the draw.
      count: N.
      shape: `(H, W)`.
      size: root mean square of a displacement, as a share of the side.

    Returns:
      Displacements in pixels along rows and columns, `[N, 2, H, W]`.
    """
    weights = jax.random.normal(key, (count, 2, _WAVES, _WAVES))
    rows, columns = (
        np.sin(np.pi * np.outer(np.arange(1, _WAVES + 1), (np.arange(side) + 0.5) / side))
        for side in shape
    )
    # Each of the waves has a mean square of 1/4.
    field = jnp.einsum("nduv,uh,vw->ndhw", weights, rows, columns) * 2 / _WAVES
    return size * jnp.array(shape, jnp.float32)[:, None, None] * field


def warp(images: jax.Array, field: jax.Array, *, order: int = 1) -> jax.Array:
    """Reads each pixel x of the result at x + u(x): `[N, H, W]` and `[N, 2, H, W]` to `[N, H, W]`.

    Args:
      images: of any numbers.
      field: u, in pixels.
      order: 1 interpolates, 0 takes the nearest pixel, as labels want it.
    """
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, images.shape[1:]), indexing="ij"))

    def of_image(image: jax.Array, u: jax.Array) -> jax.Array:
        return map_coordinates(image, list(grid + u), order=order, mode="nearest")

    return jax.vmap(of_image)(images, field)


def inverse(field: jax.Array) -> jax.Array:
    """Computes v with v(y) = -u(y + v(y)), so that `warp(warp(x, u), v)` is x again.

    By its fixed point, which is found where u stretches nothing by as much as its own length.
    """

    def step(v: jax.Array, _: None) -> tuple[jax.Array, None]:
        return -jnp.stack([warp(field[:, axis], v) for axis in (0, 1)], axis=1), None

    return jax.lax.scan(step, -field, None, length=_INVERSION)[0]
