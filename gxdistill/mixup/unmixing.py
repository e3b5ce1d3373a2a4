"""What the client makes of the server's answer: the segmentation of its own image."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gxdistill.pytrees import Params

Apply = Callable[[Params, jax.Array], jax.Array]


class Reference(NamedTuple):
    """What the client knows beside the server's answer.

    Attributes:
      images: the public images that were mixed in, `[N, H, W, C]` float32.
      labels: their segmentations, `[N, H, W]` int32.
      share: lambda, of the private images in the mixtures, `[N]`.
    """

    images: jax.Array
    labels: jax.Array
    share: jax.Array


def input_channels(channels: int, classes: int) -> int:
    """Returns the number of channels that an un-mixing network reads."""
    return 2 * classes + channels + 1


def unmix(apply: Apply, params: Params, answer: jax.Array, reference: Reference) -> jax.Array:
    """Recovers the segmentation of the private images from that of the mixtures.

    The network reads, pixel by pixel, the answer p, the reference's labels and image, and lambda.
    It adds to the logits of (p - (1 - lambda) y_r) / lambda, which is exact where the answer is the
    mixture of both segmentations, so that it has to learn what is not.

    Args:
      apply: `(params, [N, H, W, 2 K + C + 1]) -> logits [N, H, W, K]`.
      params: its weights.
      answer: probabilities of the mixtures' labels, `[N, H, W, K]`.
      reference: of each mixture.

    Returns:
      Logits of the private images' labels, `[N, H, W, K]`.
    """
    classes = answer.shape[-1]
    known = jax.nn.one_hot(reference.labels, classes, dtype=answer.dtype)
    share = reference.share.reshape(-1, 1, 1, 1)
    plane = jnp.broadcast_to(share, (*answer.shape[:3], 1))
    seen = jnp.concatenate([answer, known, reference.images, plane], axis=-1)
    exact = jnp.clip((answer - (1 - share) * known) / share, 1e-3, 1.0)
    return jnp.log(exact) + apply(params, seen)


def average(probabilities: jax.Array) -> jax.Array:
    """Averages what several references gave of the same images: `[R, N, H, W, K]` to `[N, ...]`.

    Each reference is another mixture that the server sees: `mixing.exposure` tells the price.
    """
    return jnp.mean(probabilities, axis=0)
