"""What a trained segmenter says of an image."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import models
from gxdistill.data import intensities
from gxdistill.data.files import grey
from gxdistill.models.cached import cached_network
from gxdistill.package.segmenter import Segmenter, SegmenterManifest
from gxdistill.pytrees import Network, Params
from gxdistill.segmentation import tiling

_AT_ONCE = 4  # Tiles of one call.


def network_of(manifest: SegmenterManifest) -> Network:
    """Returns the network of a segmenter."""
    network = manifest.network
    shape, classes = manifest.patch.shape, len(manifest.class_names)
    return cached_network(network.name, network.options, shape, classes)


def probabilities(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """Predicts each pixel of an image, tile by tile; safe in several threads.

    Args:
      segmenter: a trained one.
      image: `[H, W, C]` uint8, of any size, as read and normalised by the segmenter's manifest.

    Returns:
      `[H, W, K]` float32.
    """
    manifest = segmenter.manifest
    patch = manifest.patch
    mean, std = (jnp.asarray(values, jnp.float32) * 255 for values in manifest.normalisation)
    return np.asarray(
        _program()(
            network_of(manifest).apply,
            segmenter.params,
            (jnp.asarray(image).astype(jnp.float32) - mean) / std,
            patch.size,
            patch.size - patch.stride,
            manifest.flips,
        )
    )


@functools.cache  # The options ask for the backend, which a module that is imported must not.
def _program() -> jax.stages.Wrapped:
    return jax.jit(
        _predict, static_argnums=(0, 3, 4, 5), compiler_options=models.compiler_options()
    )


def _predict(
    apply: Callable[[Params, jax.Array], jax.Array],
    params: Params,
    image: jax.Array,
    size: int,
    overlap: int,
    flips: bool,
) -> jax.Array:
    def seen(tiles: jax.Array) -> jax.Array:
        return jax.nn.softmax(apply(params, tiles), axis=-1)

    apply_tiles = tiling.averaged_over_flips(seen) if flips else seen
    return tiling.predict(apply_tiles, image, size=size, overlap=overlap, at_once=_AT_ONCE)


def organ_mask(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """Finds an organ in a grey image of any size: whatever is not background.

    The image is resampled to the size of those that the segmenter was trained on, which may have
    been of another machine, and what is found is resampled back.

    Args:
      segmenter: of one channel.
      image: `[H, W]` uint8.

    Returns:
      `[H, W]` bool.

    Raises:
      ValueError: the segmenter is of another number of channels.
    """
    patch = segmenter.manifest.patch
    if patch.channels != 1:
        raise ValueError(
            f"The segmenter wants images of {patch.channels} channels; this one is grey."
        )
    height, width = image.shape
    scale = min(patch.image_height / height, patch.image_width / width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = intensities.normalise(
        grey.resample(image, size), None, segmenter.manifest.image_normalisation
    )
    background = probabilities(segmenter, small[..., None])[..., 0]
    levels = np.rint(255 * (1 - background)).astype(np.uint8)
    return grey.resample(levels, image.shape) >= 128
