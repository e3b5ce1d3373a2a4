"""Turns one entry of a manifest into an image of a cohort, by a recipe that all images share."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill import _check
from gxdistill.data import intensities
from gxdistill.data.files import burned_in, grey, images, masks
from gxdistill.data.files.grey import BadEntryError, Picture, Spacing
from gxdistill.data.files.manifest import Entry
from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata

WINDOWS = ("file", "percentiles")
FITS = ("same", "pad")
TEXTS = ("mask", "refuse", "keep")

_BURNED_IN = "burned-in text"

Segmenter = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the files of a cohort become its images.

    Attributes:
      size: height and width in pixels that all images have before they are shrunk; None takes the
        most common, or for "pad" the largest.
      downscale: averages blocks of this side; of masks, the majority.
      spacing: of pixels in millimetres, to which images are resampled; None leaves them.
      fit: "same" refuses an image of another size; "pad" puts a smaller one in the middle of black.
      window: how more than 8 bits become 8: "file" as a DICOM file says, else by percentiles;
        "percentiles" always.
      text: what is done with burned-in text: "mask", "refuse" or "keep".
      organ: labels of a label map, or names of polygons, that are the organ; none stands for all.
      segment: makes a mask `[H, W]` bool of an image `[H, W]` uint8 that has none; called from
        several threads.
      colour: whether images are read as red, green and blue; text in them is not looked for.
      classes: K of the masks, which then tell the class of each pixel, 0 the background; `organ`
        has the label of each other class, by default its number. None of them need be in an image.
        0 stands for masks of an organ.
      normalise: by what the grey values of each image are normalised, see `intensities.normalise`.
    """

    size: tuple[int, int] | None = None
    downscale: int = 1
    spacing: float | None = None
    fit: str = "same"
    window: str = "file"
    text: str = "mask"
    organ: tuple[int | str, ...] = ()
    segment: Segmenter | None = None
    normalise: str = "cohort"
    colour: bool = False
    classes: int = 0

    def __post_init__(self) -> None:
        """Refuses settings that are none."""
        _check.positive(downscale=self.downscale)
        if self.spacing is not None:
            _check.positive(spacing=self.spacing)
        _check.one_of("fit", self.fit, FITS)
        _check.one_of("window", self.window, WINDOWS)
        _check.one_of("text", self.text, TEXTS)
        _check.one_of("normalise", self.normalise, intensities.WAYS)

    @property
    def channels(self) -> int:
        """C, values of a pixel."""
        return 3 if self.colour else 1

    @property
    def is_divided(self) -> bool:
        """Whether `downscale` divides both sides of `size`."""
        return self.size is not None and not any(side % self.downscale for side in self.size)


class Facts(NamedTuple):
    """How an image was read.

    Attributes:
      bits: depth of its stored pixels.
      window: how they became 8 bits, see `grey.Picture`.
      texts: number of burned-in lines of text that were found.
      segmented: whether the mask was made by the segmenter.
    """

    bits: int = 8
    window: str = "as stored"
    texts: int = 0
    segmented: bool = False


class Sample(NamedTuple):
    """An image of a cohort.

    Attributes:
      image: `[H, W]` uint8, or `[H, W, 3]` of colours.
      mask: `[H, W]` bool, or uint8 of several classes; None where the cohort has no masks.
      digest: SHA-256 of the pixels of the file, by which a copy is known.
      facts: how it was read.
    """

    image: np.ndarray
    mask: np.ndarray | None
    digest: bytes
    facts: Facts


def read_size(entry: Entry, spacing: float | None) -> tuple[int, int]:
    """Reads from its header the height and width in pixels that an image has at a spacing.

    Raises:
      BadEntryError: the file cannot be read, or the spacing of its pixels is not known.
      UserError: the file is DICOM and pydicom is not installed.
    """
    header = images.read_header(entry.image)
    return _size_at(spacing, header.size, entry.spacing, header.spacing)


def read_entry(entry: Entry, recipe: Recipe) -> Sample:
    """Reads the image and the mask of an entry; safe in any thread or process.

    Args:
      entry: of the manifest.
      recipe: of the cohort, with its size.

    Returns:
      The sample.

    Raises:
      BadEntryError: the files cannot be read, or do not fit the recipe.
      UserError: a file is DICOM and pydicom is not installed.
    """
    picture = images.read_image(entry.image, recipe.window, colour=recipe.colour)
    pixels, texts = _without_text(picture, recipe.text)
    size = _size_at(recipe.spacing, pixels.shape[:2], entry.spacing, picture.spacing)
    whole = _fitted(pixels, size, recipe)
    if picture.pixels.min() == picture.pixels.max():
        raise BadEntryError("constant image: all pixels are equal")
    mask = None
    if entry.mask:
        mask = _read_mask(entry, pixels.shape[:2], recipe)
        _check_turned_alike(entry.mask, turned=picture.turned)
        mask = _shrunken_mask(mask, size, recipe)
    elif recipe.segment:
        mask = grey.shrink(_segmented(whole, recipe.segment), recipe.downscale)
    if mask is not None and not recipe.classes and not mask.any():
        raise BadEntryError("mask empty: no pixel of the organ")
    if mask is None and intensities.needs_mask(recipe.normalise):
        raise BadEntryError("mask missing: its grey values are normalised by the organ")
    image = grey.shrink(whole, recipe.downscale)
    organ = None if mask is None else mask > 0
    return Sample(
        _normalised(image, organ, recipe.normalise),
        mask,
        hashlib.sha256(picture.pixels.tobytes()).digest(),
        Facts(picture.bits, picture.window, texts, mask is not None and entry.mask is None),
    )


def account(recipe: Recipe, facts: Iterable[Facts]) -> Metadata:
    """Says how images were to be read, and counts how they were, as JSON can hold it."""
    known = list(facts)
    return {
        "spacing": recipe.spacing,
        "fit": recipe.fit,
        "window": recipe.window,
        "text": recipe.text,
        "bits": {str(bits): n for bits, n in sorted(Counter(f.bits for f in known).items())},
        "windows": dict(sorted(Counter(f.window for f in known).items())),
        "with_text": sum(f.texts > 0 for f in known),
        "segmented": sum(f.segmented for f in known),
    }


def _size_at(
    spacing: float | None, size: tuple[int, ...], listed: float | None, in_file: Spacing | None
) -> tuple[int, int]:
    """Height and width at a spacing; what the manifest lists goes before what the file says."""
    height, width = size
    if spacing is None:
        return height, width
    known = in_file if listed is None else (listed, listed)
    if known is None:
        raise BadEntryError("pixel spacing not known: no header and no column `spacing` tells it")
    height, width = (
        max(1, round(side * mm / spacing)) for side, mm in zip(size, known, strict=True)
    )
    grey.check_pixel_count(height, width)
    return height, width


def _without_text(picture: Picture, text: str) -> tuple[np.ndarray, int]:
    """Returns the pixels with their burned-in text dealt with, and the number of its lines."""
    if picture.pixels.ndim == 3:
        return picture.pixels, 0
    boxes = burned_in.find(picture.pixels)
    if text == "refuse" and (boxes or picture.says_text):
        raise BadEntryError(_BURNED_IN)
    if text == "mask" and picture.says_text and not boxes:
        raise BadEntryError(f"{_BURNED_IN}: its header says so, and none was found to mask")
    return burned_in.cover(picture.pixels, boxes) if text == "mask" else picture.pixels, len(boxes)


def _fitted(pixels: np.ndarray, size: tuple[int, int], recipe: Recipe) -> np.ndarray:
    if recipe.size is None:
        raise ValueError("`recipe` has no size; take the one of `source.list_entries`.")
    check_fits(size, recipe.size, recipe.fit)
    resampled = grey.resample(pixels, size)
    return resampled if size == recipe.size else grey.pad(resampled, recipe.size)


def check_fits(size: tuple[int, int], wanted: tuple[int, int], fit: str) -> None:
    """Refuses an image that would have to be stretched or cut.

    Raises:
      BadEntryError: it is of another size than wanted or, where it may be padded, larger.
    """
    if any(s > w for s, w in zip(size, wanted, strict=True)) if fit == "pad" else size != wanted:
        raise BadEntryError(f"image is {in_pixels(size)}, not {in_pixels(wanted)}")


def in_pixels(size: tuple[int, ...]) -> str:
    """Writes height and width for people."""
    return f"{size[0]}x{size[1]} px"


def _read_mask(entry: Entry, size: tuple[int, ...], recipe: Recipe) -> np.ndarray:
    assert entry.mask
    organ = recipe.organ
    try:
        if recipe.classes > 2:
            mask = images.read_labels(entry.mask, _numbers(recipe))
        else:
            mask = masks.read_mask(entry.mask, entry.image.name, (size[0], size[1]), organ)
    except BadEntryError as error:
        raise BadEntryError(f"mask: {error}") from error
    if mask.shape != size:
        raise BadEntryError(f"mask is {in_pixels(mask.shape)}, its image {in_pixels(size)}")
    return mask


def _normalised(image: np.ndarray, organ: np.ndarray | None, way: str) -> np.ndarray:
    """Normalises grey values, of colours each by itself."""
    if image.ndim == 2:
        return intensities.normalise(image, organ, way)
    channels = [intensities.normalise(image[..., i], organ, way) for i in range(image.shape[2])]
    return np.stack(channels, axis=-1)


def _numbers(recipe: Recipe) -> list[int]:
    """The labels of the classes but the background."""
    numbers = recipe.organ or tuple(range(1, recipe.classes))
    whole = [number for number in numbers if type(number) is int and number > 0]
    if len(set(whole)) != len(numbers) or len(numbers) != recipe.classes - 1:
        raise UserError(
            f"data.organ is {recipe.organ}; masks of {recipe.classes} classes need the label of "
            f"each but the background, as whole numbers, or none. Polygons tell one class alone."
        )
    return whole


def _shrunken_mask(mask: np.ndarray, size: tuple[int, int], recipe: Recipe) -> np.ndarray:
    """Fits and shrinks a mask as its image; a pixel has the class of most of what it covers."""

    def shrunken(plane: np.ndarray) -> np.ndarray:
        return grey.shrink(_fitted(plane, size, recipe), recipe.downscale)

    if recipe.classes <= 2:
        return shrunken(mask)
    # Levels, so that most need not be half; black around a smaller image is background, too.
    planes = [shrunken((mask == k) * np.uint8(255)) for k in range(recipe.classes)]
    return np.argmax(planes, axis=0).astype(np.uint8)


def _check_turned_alike(mask: Path, *, turned: bool) -> None:
    """Refuses an image that its file turns beside a mask that does not say whether it is turned.

    Polygons are drawn on what a viewer shows, which is upright; pixels may be of either.
    """
    if turned and mask.suffix.lower() != ".json" and not images.is_turned(mask):
        raise BadEntryError(
            "the image bears an EXIF orientation and its mask none, so that they may not meet; "
            "save both upright"
        )


def _segmented(whole: np.ndarray, segment: Segmenter) -> np.ndarray:
    mask = np.asarray(segment(whole))
    if mask.shape != whole.shape or mask.dtype != bool:
        raise ValueError(
            f"`segment` returned {mask.dtype} {list(mask.shape)} for an image {list(whole.shape)}; "
            f"it must return bool of the same shape."
        )
    return mask
