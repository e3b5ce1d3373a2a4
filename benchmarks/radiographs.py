"""Rebuilds the folder of public chest radiographs that `configs/radiograph.py` reads.

    python -m benchmarks.radiographs FOLDER    # writes FOLDER/cxr_tb_lung

In FOLDER lie the originals as their publishers pack them; docs/data.md says where they are had, and
under which terms:

    MontgomerySet/CXR_png/MCUCXR_0001_0.png
    MontgomerySet/ManualMask/leftMask/MCUCXR_0001_0.png, and rightMask
    ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png
    mask/CHNCXR_0001_0_mask.png

Every image and mask is resized to 512 x 512, whatever its shape was. Those of Shenzhen that nobody
drew a mask for are left out. The last digit of a name is the label.
"""

import argparse
import csv
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill.data.files import images
from gxdistill.data.files.grey import BadEntryError
from gxdistill.errors import UserError

NAME = "cxr_tb_lung"
FIELDS = ("id", "site", "patient", "label", "label_name", "split", "lung_fraction")
LABELS = ("normal", "tuberculosis")
SEED = 20240501  # Of the split.
_SIDE = 512  # Pixels.
_QUALITY = 80  # Of JPEG.
_TEST_SHARE = 0.25  # Within each site and label.
_MOST_NAMES = 5  # In a message.
_PATTERN = re.compile(r"(?:MCUCXR|CHNCXR)_\d{4}_([01])")


class Original(NamedTuple):
    """A published radiograph; `masks` are united."""

    name: str
    site: str
    label: int
    image: Path
    masks: tuple[Path, ...]


def find(folder: Path) -> list[Original]:
    """Lists the radiographs of both sets that have a mask, by site and name.

    Raises:
      UserError: a folder or a mask of Montgomery is missing, a name tells no label, or no image of
        Shenzhen has a mask; every missing thing is named.
    """
    montgomery, shenzhen = folder / "MontgomerySet", folder / "ChinaSet_AllFiles"
    sides = [montgomery / "ManualMask" / side for side in ("leftMask", "rightMask")]
    drawn = folder / "mask"
    if (drawn / "mask").is_dir():  # So it comes out of the archive.
        drawn /= "mask"
    needed = (montgomery / "CXR_png", *sides, shenzhen / "CXR_png", drawn)
    if gone := [str(path) for path in needed if not path.is_dir()]:
        raise UserError(
            f"no such folder: {', '.join(gone)}. Unpack the originals in {folder} as docs/data.md "
            f"says."
        )
    originals = [
        *_originals("Montgomery", needed[0], lambda name: [s / f"{name}.png" for s in sides]),
        *_originals("Shenzhen", needed[3], lambda name: [drawn / f"{name}_mask.png"]),
    ]
    kept = [original for original in originals if all(path.is_file() for path in original.masks)]
    if lost := [o for o in originals if o.site == "Montgomery" and o not in kept]:
        raise UserError(f"no left or no right mask in {sides[0].parent}: {_some(lost)}.")
    if not any(original.site == "Shenzhen" for original in kept):
        raise UserError(f"{drawn} has a mask NAME_mask.png of no image in {needed[3]}.")
    return kept


def _originals(
    site: str, folder: Path, masks: Callable[[str], Sequence[Path]]
) -> Iterator[Original]:
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise UserError(f"there are no PNG images in {folder}.")
    for path in paths:
        match = _PATTERN.fullmatch(path.stem)
        if match is None:
            raise UserError(f"{path}: the name must end in _0 (normal) or _1 (tuberculosis).")
        yield Original(path.stem, site, int(match[1]), path, tuple(masks(path.stem)))


def _some(originals: Sequence[Original]) -> str:
    names = [original.name for original in originals]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def split(originals: Sequence[Original], seed: int = SEED) -> dict[str, str]:
    """Draws "train" or "test" for each name: a quarter test, within each site and label.

    Of all 704 radiographs, the default seed draws the split of the recorded figures.
    """
    rng = np.random.default_rng(seed)
    splits = {}
    # The order of the groups is part of the draw: Shenzhen's names come before Montgomery's.
    for prefix, label in sorted({(o.name[:6], o.label) for o in originals}):
        names = sorted(o.name for o in originals if (o.name[:6], o.label) == (prefix, label))
        tested = round(_TEST_SHARE * len(names))
        for place, index in enumerate(rng.permutation(len(names))):
            splits[names[index]] = "test" if place < tested else "train"
    return splits


def _square(pixels: np.ndarray) -> np.ndarray:
    """Averages or enlarges `[H, W]` uint8 to `[512, 512]`."""
    from PIL import Image

    resized = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(resized)


def convert(original: Original) -> tuple[np.ndarray, np.ndarray]:
    """Reads a radiograph, `[512, 512]` uint8, and its lungs, `[512, 512]` bool.

    Raises:
      UserError: a file is damaged, coloured or too large.
    """
    try:
        pixels = images.read_image(original.image).pixels
        masks = [images.read_mask(path) for path in original.masks]
    except BadEntryError as error:
        paths = ", ".join(map(str, (original.image, *original.masks)))
        raise UserError(f"{error}, in one of {paths}.") from error
    lungs = [_square(255 * mask.astype(np.uint8)) > 127 for mask in masks]
    return _square(pixels), np.any(lungs, axis=0)


def rebuild(folder: Path, out: Path, seed: int) -> int:
    """Writes `labels.csv`, `images/` and `masks/`; the folder appears when all of it is there.

    Args:
      folder: of the originals.
      out: folder to write; it must not be there.
      seed: draws the split.

    Returns:
      The number of radiographs.

    Raises:
      UserError: `out` is there, or an original is missing or cannot be read.
    """
    if out.exists():
        raise UserError(f"{out} is there already. Remove it first, or give another --out.")
    originals = find(folder)
    splits = split(originals, seed)
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        _write(originals, splits, fresh)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return len(originals)


def _write(originals: Sequence[Original], splits: dict[str, str], folder: Path) -> None:
    from PIL import Image

    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    with (folder / "labels.csv").open("w", encoding="ascii", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(FIELDS)
        for original in originals:
            pixels, lungs = convert(original)
            name, label = original.name, original.label
            Image.fromarray(pixels).save(folder / f"images/{name}.jpg", quality=_QUALITY)
            Image.fromarray(lungs).save(folder / f"masks/{name}.png", optimize=True)
            share = round(float(lungs.mean()), 4)
            rows.writerow((name, original.site, name, label, LABELS[label], splits[name], share))


def main(argv: Sequence[str] | None = None) -> None:
    """Rebuilds the folder and says where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.radiographs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the originals lie, unpacked")
    parser.add_argument("--out", type=Path, help=f"folder to write (default: FOLDER/{NAME})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the split (default: {SEED})")
    given = parser.parse_args(argv)
    out = given.out or given.folder / NAME
    try:
        count = rebuild(given.folder, out, given.seed)
    except UserError as error:
        sys.exit(f"benchmarks.radiographs: {error}")
    print(f"{out}: {count} radiographs.")


if __name__ == "__main__":
    main()
