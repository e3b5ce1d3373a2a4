"""Draws the pictures of README.md from a run of the demo.

    gxdistill demo --workdir=runs/demo
    python -m benchmarks.pictures runs/demo    # writes docs/images

They show distilled images and a phantom; a run on patients' images is refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.record import ROOT
from gxdistill.errors import UserError
from gxdistill.report import pictures
from gxdistill.report.findings import Findings, gather

_FOLDER = ROOT / "docs/images"
_GAP = 8  # Pixels between two pictures.
_COLOURS = 128  # Of the heat map's palette.


def distilled_set(findings: Findings) -> Image.Image:
    """Draws all distilled images: a column for each inner step, below each other its images."""
    data = findings.package.distilled
    mean, std = (np.array(values, np.float32) for values in findings.manifest.normalisation)
    pixels = np.asarray(data.images) * std + mean
    low, high = pictures.grey_range(pixels)
    grey = np.rint(255 * np.clip((pixels - low) / (high - low), 0, 1)).astype(np.uint8)
    rows = [
        _beside([Image.fromarray(tile[..., 0]).resize((64, 64), 0) for tile in row])
        for row in np.swapaxes(grey, 0, 1)
    ]
    return _beside(rows, down=True)


def heat_map(findings: Findings) -> Image.Image:
    """Draws the first positive test phantom, and its heat map over it.

    Raises:
      UserError: the run has not been evaluated, or its images are not phantoms.
    """
    maps = findings.heatmaps
    if maps is None:
        raise UserError("there are no heat maps; run `gxdistill evaluate` first.")
    case = int(np.argmax(maps["labels"] == 1))
    if not str(maps["names"][case]).startswith("phantom-"):
        raise UserError("the images of this run are no phantoms; a patient's are not to be shown.")
    photograph = pictures.whole(maps["images"][case]).convert("RGBA")
    place = maps["corners"], int(maps["size"]), maps["images"][case].shape
    heat = pictures.overlay(*pictures.heat_map(maps["probabilities"][case], *place))
    coloured = Image.alpha_composite(photograph, heat)
    return _beside([photograph.convert("RGB"), coloured.convert("RGB")]).quantize(_COLOURS)


def _beside(tiles: Sequence[Image.Image], down: bool = False) -> Image.Image:
    """Puts pictures of one size beside each other, or below."""
    width, height = tiles[0].size
    across, along = (0, height + _GAP) if down else (width + _GAP, 0)
    last = len(tiles) - 1
    size = (width + last * across, height + last * along)
    sheet = Image.new(tiles[0].mode, size, "white")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place * across, place * along))
    return sheet


def main(argv: Sequence[str] | None = None) -> None:
    """Draws both pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("workdir", type=Path, help="of a run of the demo")
    parser.add_argument("--out", type=Path, default=_FOLDER, help="folder to write")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        findings = gather(given.workdir, given.workdir / "package.gxd")
        drawn = {"distilled": distilled_set(findings), "heat_map": heat_map(findings)}
    except UserError as error:
        sys.exit(f"benchmarks.pictures: {error}")
    for name, picture in drawn.items():
        path = given.out / f"{name}.png"
        picture.save(path, optimize=True)
        print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
