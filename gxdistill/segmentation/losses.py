"""Losses of a segmentation: half soft Dice, half cross-entropy, at one resolution or several."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gxdistill import _check

_SMOOTH = 1.0  # Pixels; a class that is nowhere and predicted nowhere counts as found.


def soft_dice(logits: jax.Array, labels: jax.Array, *, over: str = "image") -> jax.Array:
    """Averages (2 sum p t + s) / (sum p + sum t + s) over images and classes but the background.

    p are the probabilities of a class, t is 1 where it truly is, and s is one pixel.

    Args:
      logits: `[N, H, W, K]` float, K at least 2; class 0 is the background.
      labels: class of each pixel, `[N, H, W]` integer.
      over: pixels that a sum is over: those of each "image", so that the mean over several batches
        is that over all their images, or of the whole "batch", which is calmer where a class is
        rare.

    Returns:
      Scalar from 0 to 1.

    References:
      Milletari et al. 2016, https://arxiv.org/abs/1606.04797, without its squares, as Drozdzal et
      al. 2016, https://arxiv.org/abs/1608.04117.
    """
    _check.one_of("over", over, ("image", "batch"))
    axes = (1, 2) if over == "image" else (0, 1, 2)
    p = jax.nn.softmax(logits, axis=-1)[..., 1:]
    t = jax.nn.one_hot(labels, logits.shape[-1], dtype=p.dtype)[..., 1:]
    both, sizes = jnp.sum(p * t, axes), jnp.sum(p, axes) + jnp.sum(t, axes)
    return jnp.mean((2 * both + _SMOOTH) / (sizes + _SMOOTH))


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Averages -log p(true class) over all pixels: `[N, H, W, K]`, `[N, H, W]` -> scalar."""
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1))


def segmentation_loss(logits: jax.Array, labels: jax.Array, *, over: str = "image") -> jax.Array:
    """Computes .5 (1 - soft Dice) + .5 cross-entropy.

    Args:
      logits: `[N, H, W, K]` float, K at least 2; class 0 is the background.
      labels: class of each pixel, `[N, H, W]` integer.
      over: see `soft_dice`.

    Returns:
      Scalar.

    Example:
      `jax.grad(lambda w: segmentation_loss(network.apply(w, batch.images), batch.targets))(w)`

    References:
      Isensee et al., Nature Methods 18:203, 2021, https://doi.org/10.1038/s41592-020-01008-z.
    """
    unlike = 1 - soft_dice(logits, labels, over=over)
    return (unlike + pixel_cross_entropy(logits, labels)) / 2


def deep_loss(levels: Sequence[jax.Array], labels: jax.Array, *, over: str = "image") -> jax.Array:
    """Averages `segmentation_loss` over resolutions, each with half the weight of the finer one.

    Args:
      levels: logits `[N, ceil(H / 2^i), ceil(W / 2^i), K]`, the finest first, as
        `pytrees.Network.apply_levels` gives them.
      labels: class of each pixel, `[N, H, W]` integer; a coarser pixel has the class of its upper
        left one.
      over: see `soft_dice`.

    Returns:
      Scalar.
    """
    losses = [
        segmentation_loss(logits, labels[:, :: 2**i, :: 2**i], over=over)
        for i, logits in enumerate(levels)
    ]
    weights = 0.5 ** jnp.arange(len(levels))
    return jnp.average(jnp.stack(losses), weights=weights)
