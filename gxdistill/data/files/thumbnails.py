"""A small picture of any image that can be decoded at all, sound or not."""

from pathlib import Path
from typing import TYPE_CHECKING

from gxdistill.data.files import images
from gxdistill.data.files.grey import MAX_PIXELS, BadEntryError

if TYPE_CHECKING:
    from PIL import Image


def thumbnail(path: Path, side: int) -> "Image.Image | None":
    """Draws a file for people, in its colours where it has any.

    Args:
      path: of a PNG, JPEG, TIFF or DICOM file.
      side: largest height and width in pixels.

    Returns:
      The picture; None where the file cannot be decoded.
    """
    from PIL import Image

    picture: Image.Image | None
    with images.quiet():
        try:
            picture = Image.fromarray(images.read_image(path).pixels)
        except BadEntryError:
            picture = _in_colour(path)
    if picture is not None:
        picture.thumbnail((side, side))
    return picture


def _in_colour(path: Path) -> "Image.Image | None":
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
            fits = image.width * image.height <= MAX_PIXELS
            return image.convert("RGB") if fits else None
    except Exception:  # Damaged bytes make Pillow raise nearly anything.
        return None
