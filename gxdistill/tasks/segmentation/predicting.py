"""Segmenting images of one's own by a package: label maps, and what they show."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gxdistill import storage
from gxdistill.data.files import images, reading
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import Entry
from gxdistill.data.files.reading import Recipe
from gxdistill.errors import UserError
from gxdistill.package.segmenter import SegmenterManifest, load_segmenter
from gxdistill.package.segmenting import probabilities
from gxdistill.pytrees import Metadata

SHARES = "shares.json"


def predict(
    path: Path, files: Sequence[Path], target: Path, log: Callable[[str], None]
) -> list[Metadata]:
    """Writes for each image its label map, as `NAME.png`, and `shares.json`.

    A label map has the size of its image's file; its numbers are those of the classes.

    Args:
      path: of the segmenter.
      files: of images of any size.
      target: folder to write.
      log: told what is refused.

    Returns:
      For each image its `image`, and the share of each class, or why it is `refused`.

    Raises:
      UserError: the package cannot be read, two images would write the same file, or no image can
        be segmented.
    """
    segmenter = load_segmenter(path)
    manifest = segmenter.manifest
    names = [storage.plain_name(f"{file.stem}.png") for file in files]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(f"Two images would give the file {name}. Segment them one by one.")
    rows: list[Metadata] = []
    for file, name in zip(files, names, strict=True):
        try:
            pixels, size = _read(file, manifest)
        except BadEntryError as error:
            log(f"{file}: refused: {error}")
            rows.append({"image": file.name, "refused": str(error)})
            continue
        labels = probabilities(segmenter, pixels).argmax(axis=-1).astype(np.uint8)
        shares = {k: float((labels == i).mean()) for i, k in enumerate(manifest.class_names)}
        whole = Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST)
        storage.write_bytes(target / name, _png(whole))
        rows.append({"image": file.name, "labels": name, "shares": shares})
    if all("refused" in row for row in rows):
        raise UserError(f"No image could be segmented: {json.dumps(rows[0]['refused'])}.")
    storage.write_json(target / SHARES, {"segmenter": segmenter.sha256, "images": rows})
    return rows


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _read(file: Path, manifest: SegmenterManifest) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads an image as the segmenter's were read; also its size in pixels before it is shrunk."""
    patch, way = manifest.patch, manifest.reading
    with images.quiet():
        size = images.read_header(file).size
        factor = patch.downscale
        # Whole blocks, so that it can be shrunk: a few pixels are put amid black.
        padded = tuple(-(-side // factor) * factor for side in size)
        recipe = Recipe(
            (padded[0], padded[1]),
            downscale=factor,
            fit="pad",
            window=way.window if way else "file",
            text=way.text if way else "keep",
            normalise=manifest.image_normalisation,
            colour=patch.channels == 3,
        )
        image = reading.read_entry(Entry.of_image(file), recipe).image
    return image.reshape(*image.shape[:2], -1), size
