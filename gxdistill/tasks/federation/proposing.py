"""`gxdistill federate new`: from one folder a hospital to a manifest with sites, and a config."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from gxdistill import storage
from gxdistill.errors import UserError

IMAGES, MASKS = "images", "masks"  # Folders in that of a hospital.
_CONFIG = '''"""A federation of {sites}; made by `gxdistill federate new`.

  gxdistill federate simulate --config={target}
"""

import ml_collections

from gxdistill.tasks.federation.settings import default_config


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Makes the config: "full", or "smoke" of a few steps."""
    if variant not in ("full", "smoke"):
        raise ValueError(f"unknown variant {{variant!r}}; there are 'full' and 'smoke'")
    config = default_config()
    config.name = {name!r}
    config.data.path = {root!r}
    config.data.manifest = {manifest!r}
    config.data.files = {root!r}
    config.data.label_names = ()
    config.data.mask_classes = ("background", "foreground")  # As many as a mask has values.
    config.data.fit = "pad"  # Images of several sizes; "same" refuses them.
    config.data.normalise = "image"
    config.patch.update(size=128, stride=16)  # A crop, at most the images' side.
    config.network.options = {{"width": 16, "depth": 3}}
    config.federation.update(rounds=25, local_steps=20, batch=8)
    config.federation.augment = ("dihedral", "intensity")
    if variant == "smoke":
        config.name += "_smoke"
        config.network.options = {{"width": 4, "depth": 1}}
        config.patch.update(size=16, stride=16)
        config.federation.update(rounds=2, local_steps=2, batch=4, overlap=8)
    return config
'''


def write(folders: Sequence[Path], target: Path) -> list[str]:
    """Writes a config and, beside it, a manifest of the images of several hospitals.

    Args:
      folders: one of each hospital, which names the site; of each the images lie in `images`, and
        their masks, of the same names but for the ending, in `masks`. Each image is taken for a
        patient of its own.
      target: the config to write, which must not exist, nor the manifest of its name.

    Returns:
      What to tell the user, line by line.

    Raises:
      UserError: a folder has no such images, names repeat, or a file exists or cannot be written.
    """
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names) or len(names) < 2:
        raise UserError(
            f"The folders are called {', '.join(names)}; each names a site, and there must be two "
            f"at least, all different. Rename them."
        )
    manifest = target.with_suffix(".csv")
    for path in (target, manifest):
        if path.exists():
            raise UserError(f"{path} exists already. Remove it, or choose another --out.")
    root = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    rows, told = [], []
    for folder in folders:
        pairs = _pairs(folder)
        told.append(f"{folder.name}: {len(pairs)} images with masks")
        for image, mask in pairs:
            rows.append(
                {
                    "image": image.absolute().relative_to(root).as_posix(),
                    "mask": mask.absolute().relative_to(root).as_posix(),
                    "label": "",
                    "patient": f"{folder.name}/{image.stem}",
                    "site": folder.name,
                }
            )
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    storage.write_text(manifest, table.getvalue())
    text = _CONFIG.format(
        sites=" and ".join(names),
        target=target.name,
        name=target.stem,
        root=str(root),
        manifest=str(manifest.absolute()),
    )
    storage.write_text(target, text)
    return [
        *told,
        f"manifest: {manifest}; each image is taken for a patient: correct the column `patient` "
        f"where one has several",
        f"config: {target}",
        f"look next: gxdistill federate simulate --config={target}",
    ]


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Finds each image's mask."""
    for part in (IMAGES, MASKS):
        if not (folder / part).is_dir():
            raise UserError(
                f"{folder} has no folder {part!r}. Put a hospital's images into {folder / IMAGES} "
                f"and their masks, of the same names, into {folder / MASKS}."
            )
    masks = {path.stem: path for path in sorted((folder / MASKS).iterdir()) if path.is_file()}
    images = [path for path in sorted((folder / IMAGES).iterdir()) if path.is_file()]
    lacking = [path.name for path in images if path.stem not in masks]
    if lacking or not images:
        raise UserError(
            f"{folder / IMAGES} has {len(images)} images, and {len(lacking)} have no mask in "
            f"{folder / MASKS}: {', '.join(lacking[:3])}. Add them, or take the images out."
        )
    return [(path, masks[path.stem]) for path in images]
