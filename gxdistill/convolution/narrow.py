"""Convolutions of few features on a CPU: pixels of a row that lie side by side, computed together.

XLA computes a convolution at a CPU's peak where its features fill the processor's registers, and
two to ten times slower below. Two pixels side by side are 2 Co features of a kernel that is a pixel
wider and steps by two: for a 3x3 kernel a third more work, at the peak.
"""

import jax
import jax.numpy as jnp

from gxdistill.convolution.blocks import Pads

_FILLED = 32  # Features from which on XLA is near the peak,
_FILLED_OF_FEW = 64  # and where the images have fewer channels than
_FEW_CHANNELS = 4
_MANY_CHANNELS = 24  # From here on it is as fast by itself, however few the features.
_MOST = 16  # Pixels.


def at_once(kernel: tuple[int, ...], width: int) -> int:
    """Counts the pixels of a row that are computed together.

    Args:
      kernel: its shape `[h, w, Ci, Co]`.
      width: of the outputs.

    Returns:
      A divisor of the width; 1 where one by one is as fast.
    """
    high, broad, channels, features = kernel
    if high * broad == 1 or channels >= _MANY_CHANNELS:  # 1x1 is a product as it is.
        return 1
    filled = _FILLED_OF_FEW if channels < _FEW_CHANNELS else _FILLED
    most = max(1, min(_MOST, filled // features))
    return next(count for count in range(most, 0, -1) if width % count == 0)


def convolve(
    x: jax.Array,
    k: jax.Array,
    *,
    stride: int,
    pads: Pads,
    apart: int = 1,
    pixels: int | None = None,
) -> jax.Array:
    """Convolves images, several outputs of a row at once where that is faster.

    Args:
      x: `[N, H, W, Ci]`.
      k: kernel `[h, w, Ci, Co]`.
      stride: step in pixels.
      pads: as ((top, bottom), (left, right)).
      apart: of the images' pixels, `apart - 1` zeros between them.
      pixels: that are computed together, a divisor of the outputs' width; by default `at_once`.

    Returns:
      `[N, H', W', Co]`.
    """
    if pixels is None:
        width = (x.shape[2] - 1) * apart + 1
        wide = (width + sum(pads[1]) - k.shape[1]) // stride + 1
        pixels = at_once(k.shape, wide)
    reach = (pixels - 1) * stride
    # The kernel as each of them meets it, zeros where its neighbours do.
    moved = [((0, 0), (at, reach - at), (0, 0), (0, 0)) for at in range(0, reach + 1, stride)]
    together = jnp.concatenate([jnp.pad(k, around) for around in moved], -1)
    y = jax.lax.conv_general_dilated(
        x,
        together,
        (stride, stride * pixels),
        pads,
        lhs_dilation=(apart, apart),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*y.shape[:2], -1, k.shape[3])
