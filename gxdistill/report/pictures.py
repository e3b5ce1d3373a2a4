"""Pixels for the page: distilled images, whole images, heat maps; PNG in data URIs."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_DISTILLED_SIDE = 128  # Pixels: smaller ones are enlarged to it, larger ones reduced.
_WHOLE_SIDE = 360
_OPACITY = 0.62
# Blue to red through a pale yellow: told apart with any common colour blindness, and on grey.
_HEAT_STOPS = (0.0, 0.5, 1.0)
_HEAT_COLOURS = np.array([(49, 110, 190), (247, 228, 160), (205, 45, 35)])

_STOPS = ", ".join(f"rgba({r}, {g}, {b}, {_OPACITY})" for r, g, b in _HEAT_COLOURS.tolist())
HEAT_GRADIENT = f"linear-gradient(90deg, {_STOPS})"  # CSS, for the legend.


def source(picture: "Image.Image") -> dict[str, object]:
    """Makes the attributes of an `img` element that holds its picture: all but `alt`."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"src": uri, "width": picture.width, "height": picture.height}


def distilled(pixels: np.ndarray) -> "Image.Image":
    """Draws a distilled image, every pixel a square.

    Args:
      pixels: `[H, W, C]` uint8, C = 1 or 3.
    """
    from PIL import Image

    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    scale = _DISTILLED_SIDE / max(picture.size)
    if scale >= 1:
        whole = int(scale)
        return picture.resize(
            (picture.width * whole, picture.height * whole), Image.Resampling.NEAREST
        )
    return _reduced(picture, _DISTILLED_SIDE)


def whole(pixels: np.ndarray) -> "Image.Image":
    """Draws a radiograph, `[H, W]` uint8."""
    from PIL import Image

    return _reduced(Image.fromarray(pixels), _WHOLE_SIDE)


def overlay(heat: np.ndarray, share: np.ndarray) -> "Image.Image":
    """Draws a heat map to lie over its radiograph.

    Args:
      heat: `[H, W]`, from 0 to 1.
      share: `[H, W]`, from 0, transparent, to 1.
    """
    from PIL import Image

    channels = [np.interp(heat, _HEAT_STOPS, colour) for colour in _HEAT_COLOURS.T]
    rgba = np.stack([*channels, 255 * _OPACITY * share], axis=-1)
    return _reduced(Image.fromarray(np.rint(rgba).astype(np.uint8)), _WHOLE_SIDE)


def _reduced(picture: "Image.Image", side: int) -> "Image.Image":
    picture.thumbnail((side, side))
    return picture


def grey_range(pixels: np.ndarray) -> tuple[float, float]:
    """Finds the range in which all but the lowest and highest percent lie, never empty."""
    low, high = np.percentile(pixels, (1, 99)).tolist()
    return low, max(high, low + 1e-6)


def heat_map(
    probabilities: np.ndarray, corners: np.ndarray, size: int, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Spreads patch predictions over the pixels of their image.

    Args:
      probabilities: `[n, K]`; the last class is positive, the last but one negative.
      corners: (row, col) of the patches in pixels, `[n, 2]`.
      size: side of a patch in pixels.
      shape: of the image, height and width in pixels.

    Returns:
      For each pixel, `[H, W]` float64 each: p_P / (p_P + p_N) averaged over the patches that cover
      it and are not taken for irrelevant, 0 where there is none; and the share of these among all
      that cover it.
    """
    negative, positive = probabilities[:, -2], probabilities[:, -1]
    relevant = probabilities.argmax(axis=1) >= probabilities.shape[1] - 2
    relevant &= ~np.isnan(probabilities).any(axis=1)  # A network that diverged.
    votes = np.divide(positive, positive + negative, out=np.zeros(len(corners)), where=relevant)
    covering, kept, total = (
        _spread(weights, corners, size, shape)
        for weights in (np.ones(len(corners)), relevant, votes)
    )
    heat = np.divide(total, kept, out=np.zeros(shape), where=kept > 0)
    return heat, np.divide(kept, covering, out=np.zeros(shape), where=covering > 0)


def _spread(
    weights: np.ndarray, corners: np.ndarray, size: int, shape: tuple[int, int]
) -> np.ndarray:
    """Sums the weights of the patches that cover each pixel, `[H, W]`."""
    # Steps at the four corners of each patch, then two running sums: no loop over patches.
    steps = np.zeros((shape[0] + 1, shape[1] + 1))
    for down, right, sign in ((0, 0, 1), (0, size, -1), (size, 0, -1), (size, size, 1)):
        np.add.at(steps, (corners[:, 0] + down, corners[:, 1] + right), sign * weights)
    return steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
