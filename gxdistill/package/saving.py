"""Writing packages: new ones, and those of schema version 1 anew."""

import dataclasses
from pathlib import Path

import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.package.content import (
    ARRAYS,
    CARD,
    DIVERGED_HERE,
    MANIFEST,
    PREVIEWS,
    SUMS,
    Package,
    arrays_of,
    check_arrays,
    sums,
    to_package,
)
from gxdistill.package.description import card
from gxdistill.package.fields import Manifest, from_json, to_json
from gxdistill.package.manifest import SCHEMA_VERSION, check, migrate
from gxdistill.package.previews import previews
from gxdistill.pytrees import Metadata


def _text(manifest: Manifest) -> bytes:
    return storage.json_text(to_json(manifest)).encode()


def _checked(table: Metadata, where: Path) -> Manifest:
    check(table, where)
    return from_json(Manifest, table)


def save(path: Path, package: Package) -> None:
    """Writes a package, in place of the one at `path` if there is one, at one stroke.

    Args:
      path: its file, by custom `NAME.gxd`.
      package: what to write; the same package gives the same bytes.

    Raises:
      UserError: the disk is full, the place not writable, arrays hold NaN or infinity, or disagree
        with the manifest. A former package is then unchanged.
      ValueError: the images are not of the package's precision.
    """
    manifest = dataclasses.replace(package.manifest, schema_version=SCHEMA_VERSION, arrays={})
    # As a reader will have it: what the data card says does not depend on the order of tables.
    manifest = _checked(storage.parse_json(_text(manifest), path), path)
    arrays = arrays_of(package)
    check_arrays(manifest, arrays, path, diverged=DIVERGED_HERE)
    with storage.scratch_folder(path) as folder:
        digests = storage.save_arrays(folder / ARRAYS, arrays)
        members: dict[str, storage.Content] = dict(storage.read_files(folder))
    manifest = dataclasses.replace(manifest, arrays=digests)
    check(to_json(manifest), path)
    members[MANIFEST] = _text(manifest)
    members[CARD] = card(dataclasses.replace(package, manifest=manifest)).encode()
    for name, picture in previews(np.asarray(package.distilled.images)).items():
        members[PREVIEWS + name] = picture
    members[SUMS] = sums(members)
    storage.write_bytes(path, storage.pack(members))


def convert(folder: Path, path: Path) -> None:
    """Writes a package of schema version 1, which was a folder, as one of today.

    Args:
      folder: `manifest.json` and `arrays`.
      path: the file to write; `folder` stays.

    Raises:
      UserError: the folder is no package or was damaged, or the file is there already or cannot
        be written.
    """
    if path.exists():
        raise UserError(f"{path} exists already. Remove it, or choose another place.")
    folder = storage.find_folder(folder)
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"{folder} is no package of schema version 1: there is no {MANIFEST} in it. Name the "
            f"folder that an earlier release made."
        )
    sealed = storage.read_json(folder / MANIFEST)
    storage.check_seal(sealed, folder / MANIFEST)
    manifest = _checked(migrate(sealed, folder), folder)
    arrays = storage.load_arrays(folder / "arrays", manifest.arrays)
    check_arrays(manifest, arrays, folder)
    save(path, to_package(manifest, arrays))
