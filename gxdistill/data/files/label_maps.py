"""The rules by which pixels say where the organ is.

A mask has two values, of which one is 0 or black; or it is a map of whole numbers and the labels
that are the organ are given. What is neither, as a mask of probabilities, with soft edges or with a
value for "not known", is refused: no level is guessed above which a pixel is organ.
"""

from collections.abc import Sequence

import numpy as np

from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.raster import Raster

_SHOWN = 6  # Values in a message.
_WHOLE = (1, 255, 65535)  # Numbers that, alone, say that all of the image is organ.
_BLOCK = 8  # Pixels a side of a block that a JPEG rounds by itself.
_RINGING = 48  # Levels by which the pixels of a block may on average be off black and white.
_CUT = 128
_WAY_OUT = "save it with two values, 0 and another, or name the organ's labels by `data.organ`"


def of_numbers(values: np.ndarray, organ: Sequence[int] = ()) -> np.ndarray:
    """Returns where a label map shows the organ.

    Args:
      values: `[H, W]`, bool, integer or float.
      organ: the labels that are the organ; none stands for the other of two values, one of them 0.

    Returns:
      The mask, `[H, W]` bool.

    Raises:
      BadEntryError: the values do not say.
    """
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values % 1 == 0).all()):
        raise BadEntryError(f"fractions, as of probabilities; {_WAY_OUT}")
    if organ:
        mask = np.isin(values, organ)
        if not mask.any():
            labels = ", ".join(map(str, organ))
            raise BadEntryError(f"none of the organ's labels {labels} in it, but {_listed(values)}")
        return mask
    low, high = values.min(), values.max()
    if low == high and (low == 0 or low in _WHOLE):
        return values != 0
    if low != 0:
        raise BadEntryError(f"no background 0 in it, but {_listed(values)}; {_WAY_OUT}")
    if not ((values == 0) | (values == high)).all():
        raise BadEntryError(
            f"{_listed(values)}: several labels, soft edges or a value for unknown; {_WAY_OUT}"
        )
    return values != 0


def of_lossy(levels: np.ndarray, organ: Sequence[int] = ()) -> np.ndarray:
    """Returns where a mask in black and white is white that was compressed with loss.

    Its edges ring, so that a level above 127 is white; blocks that ring more than edges do are of
    another kind.

    Args:
      levels: `[H, W]` uint8.
      organ: must be empty: no label survives a compression with loss.

    Returns:
      The mask, `[H, W]` bool.

    Raises:
      BadEntryError: labels are asked for, or the levels are not those of black and white.
    """
    if organ:
        raise BadEntryError("compressed with loss; labels to choose from need a grey PNG or TIFF")
    mask = levels >= _CUT
    off = np.where(mask, 255 - levels, levels).astype(np.float32)
    height, width = (-(-side // _BLOCK) * _BLOCK for side in levels.shape)
    off = np.pad(off, ((0, height - off.shape[0]), (0, width - off.shape[1])))
    blocks = off.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).mean(axis=(1, 3))
    dark = not mask.any() and levels.max() > 0  # Labels of small numbers, for example.
    if blocks.max() > _RINGING or dark:
        raise BadEntryError(
            f"levels {levels.min()} to {levels.max()} compressed with loss, and not black and "
            f"white alone; save it as PNG with two values, 0 and another"
        )
    return mask


def organ_of(mask: Raster, organ: Sequence[int] = ()) -> np.ndarray:
    """Returns where a decoded PNG, JPEG or TIFF shows the organ.

    Args:
      mask: grey, of a palette, in colours or with opacity.
      organ: the labels that are the organ, of a palette its indices; none as in `of_numbers`.

    Returns:
      The mask, `[H, W]` bool.

    Raises:
      BadEntryError: the pixels do not say.
    """
    colours = mask.values.ndim == 3
    layout = mask.layout
    if organ and (colours or (mask.alpha is not None and mask.palette is None)):
        what = "colours" if colours else "transparent pixels"
        raise BadEntryError(f"{what}; labels to choose from need a grey PNG or TIFF")
    if layout.lossy:
        return of_lossy(_grey(mask.values), organ)
    if layout.white_is_zero and layout.bits > 1:
        raise BadEntryError(
            f"TIFF whose white is 0: what its numbers stand for is open; {_WAY_OUT}"
        )
    if organ:
        return of_numbers(_unspread(mask), organ)
    if mask.alpha is not None:
        return _of_opacity(mask)
    if mask.palette is not None:
        return _of_palette(mask.values, mask.palette)
    return of_numbers(_codes(mask.values) if colours else _unspread(mask))


def classes_of(mask: Raster, numbers: Sequence[int]) -> np.ndarray:
    """Returns the class of each pixel of a map of several labels.

    Args:
      mask: grey, or of a palette.
      numbers: that stand for class 1, 2 and so on, of a palette its indices; 0 is class 0.

    Returns:
      `[H, W]` uint8.

    Raises:
      BadEntryError: the pixels are no numbers as they were stored, or others than these.
    """
    if mask.values.ndim == 3 or mask.layout.lossy or mask.layout.white_is_zero:
        raise BadEntryError("colours, or compressed with loss; labels need a grey PNG or TIFF")
    if mask.alpha is not None and mask.palette is None:
        raise BadEntryError("transparent pixels; labels need a grey PNG or TIFF")
    values = _unspread(mask)
    classes = np.zeros(values.shape, np.uint8)
    for k, number in enumerate(numbers, 1):
        classes[values == number] = k
    if ((classes == 0) & (values != 0)).any():
        known = ", ".join(map(str, numbers))
        raise BadEntryError(f"{_listed(values)}; its labels must be 0, {known}")
    return classes


def _grey(levels: np.ndarray) -> np.ndarray:
    if levels.ndim == 2:
        return levels
    spread = levels.max(axis=-1) - levels.min(axis=-1)
    if spread.max() > _RINGING:
        raise BadEntryError("colours compressed with loss; save it as PNG, the organ's label alone")
    return levels[..., 1]


def _unspread(mask: Raster) -> np.ndarray:
    """Grey numbers as stored: Pillow spreads 2 and 4 bits over 8."""
    if mask.palette is None and mask.layout.bits in (2, 4):
        return mask.values // np.uint8(255 // (2**mask.layout.bits - 1))
    return mask.values


def _codes(colours: np.ndarray) -> np.ndarray:
    """A number for each colour: 0 for black, 1 for the one other; refuses more colours.

    A mask of one colour must be black or white.
    """
    codes = np.zeros(colours.shape[:2], np.int64)
    for channel in range(colours.shape[2]):
        codes = codes << 16 | colours[..., channel]
    low, high = codes.min(), codes.max()
    if not ((codes == low) | (codes == high)).all():
        raise BadEntryError("more than two colours; save it as a label map, and name its labels")
    white = int((colours == np.iinfo(colours.dtype).max).all()) if low == high else 0
    if low != 0 and not white:
        raise BadEntryError("colours, none of them black; save it with two values, 0 and another")
    return codes != 0


def _of_opacity(mask: Raster) -> np.ndarray:
    """What is opaque is the organ, where that is all that the file shows."""
    assert mask.alpha is not None
    opaque = mask.values[mask.alpha]
    if mask.half_clear:
        raise BadEntryError("half-transparent pixels; save it opaque, with two values")
    if not len(opaque):
        raise BadEntryError("nothing but transparent pixels; save it opaque, with two values")
    if (opaque != opaque[0]).any():
        raise BadEntryError("transparent pixels beside several colours; save it opaque")
    shown = opaque[0] if mask.palette is None else mask.palette[opaque[0]]
    if not np.any(shown):
        raise BadEntryError("black on transparent: which is the organ is open; save it opaque")
    return mask.alpha


def _of_palette(indices: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Of two colours, the one that is not black, if that is not index 0 beside another black."""
    used = np.unique(indices)
    if used[-1] >= len(palette):
        raise BadEntryError("damaged (an index beyond its palette)")
    if len(used) > 2:
        raise BadEntryError(
            f"{len(used)} indices of a palette; name those of the organ by `data.organ`"
        )
    black = [int(index) for index in used if not palette[index].any()]
    if len(black) == 1 and (black[0] == 0 or used[0] != 0):
        return indices != black[0]
    if len(used) == 1 and used[0] != 0 and (palette[used[0]] == 255).all():
        return indices != 0
    raise BadEntryError(
        "palette of which index 0 is not the black: which is the organ is open; name its indices "
        "by `data.organ`"
    )


def _listed(values: np.ndarray) -> str:
    levels = np.unique(values)
    shown = ", ".join(f"{level:g}" for level in levels[:_SHOWN].tolist())
    return f"{len(levels)} values ({shown}{', ...' if len(levels) > _SHOWN else ''})"
