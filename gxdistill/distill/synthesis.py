"""What is learned in place of the pixels of distilled images, and how images are made of it.

`Learned.images` holds the parameters; the images made of them are what is trained on and packaged.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gxdistill import _check

Parameters = Any  # A pytree of float arrays.


class Synthesis(NamedTuple):
    """A way to make images.

    Attributes:
      init: `(images [S, B, H, W, C], key) -> parameters` of about these images.
      synthesise: `parameters -> images [S, B, H, W, C]`, differentiable.
    """

    init: Callable[[jax.Array, jax.Array], Parameters]
    synthesise: Callable[[Parameters], jax.Array]


def pixels() -> Synthesis:
    """Learns the pixels themselves."""
    return Synthesis(lambda images, _: images, lambda images: images)


def tiles(shape: tuple[int, int], factor: int = 2) -> Synthesis:
    """Learns images of `1 / factor` of the side, enlarged bilinearly.

    What is saved in numbers buys more images, as in Kim et al. 2022,
    https://arxiv.org/abs/2205.14959.

    Args:
      shape: height and width of the images in pixels.
      factor: how many times a tile is enlarged along each axis.

    Raises:
      ValueError: `factor` is not positive, or a tile would have no pixel.
    """
    _check.positive(factor=factor)
    if min(shape) < factor:
        raise ValueError(
            f"Images of {shape[0]}x{shape[1]} pixels cannot be made of tiles {factor} times "
            f"smaller. Lower `factor`."
        )

    def resize(images: jax.Array, height: int, width: int) -> jax.Array:
        kept = (*images.shape[:2], height, width, images.shape[-1])
        return jax.image.resize(images, kept, "linear")

    def init(images: jax.Array, _: jax.Array) -> jax.Array:
        return resize(images, shape[0] // factor, shape[1] // factor)

    return Synthesis(init, lambda tiles: resize(tiles, *shape))


def levels(count: int) -> Synthesis:
    """Learns pixels that are rounded to levels, and the lowest and the highest level of each image.

    The gradient passes the rounding as if it was not there, and that of the range is then the one
    of Esser et al. 2020, https://arxiv.org/abs/1902.08153.

    Args:
      count: number of levels of an image, at equal distances.
    """

    def init(images: jax.Array, _: jax.Array) -> dict[str, jax.Array]:
        axes = (2, 3, 4)
        return {"values": images, "low": images.min(axes), "high": images.max(axes)}

    def synthesise(parameters: dict[str, jax.Array]) -> jax.Array:
        low, high = (parameters[name][..., None, None, None] for name in ("low", "high"))
        step = jnp.maximum(high - low, 1e-6) / (count - 1)
        place = jnp.clip((parameters["values"] - low) / step, 0, count - 1)
        near = place + jax.lax.stop_gradient(jnp.rint(place) - place)
        return low + step * near

    return Synthesis(init, synthesise)


def bases(count: int) -> Synthesis:
    """Learns images that all distilled images share, and each one's mixture of them.

    After Deng & Russakovsky 2022, https://arxiv.org/abs/2206.02916.

    Args:
      count: number of bases.

    Raises:
      ValueError: `count` is not positive; in `init`, there are fewer images than bases.
    """
    _check.positive(count=count)

    def init(images: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        steps, per_step = images.shape[:2]
        if steps * per_step < count:
            raise ValueError(
                f"{steps * per_step} images are fewer than the {count} bases they are to be made "
                f"of. Learn the pixels, or lower `count`."
            )
        # Each starts as one base in turn; the noise tells those of the same base apart.
        coefficients = jax.nn.one_hot(jnp.arange(steps * per_step) % count, count)
        coefficients += 0.1 * jax.random.normal(key, coefficients.shape)
        return {
            "bases": images.reshape(-1, *images.shape[2:])[:count],
            "coefficients": coefficients.reshape(steps, per_step, count),
        }

    def synthesise(parameters: dict[str, jax.Array]) -> jax.Array:
        return jnp.einsum("sbn,nhwc->sbhwc", parameters["coefficients"], parameters["bases"])

    return Synthesis(init, synthesise)
