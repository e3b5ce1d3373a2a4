"""Packages as they are held in memory and in a file.

A file holds, see docs/format.md: `manifest.json`, which says all that the receiving side must know;
`arrays/`, an Orbax checkpoint, with the SHA-256 of every array in the manifest; for people,
`README.md` and `previews/`; `SHA256SUMS` of all of these; and at will `signature.ed25519`. No time
and no place is written: the same run gives the same bytes.
"""

import dataclasses
import hashlib
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.package import precision
from gxdistill.package.fields import Manifest, from_json
from gxdistill.package.manifest import WAY_OUT, check, migrate
from gxdistill.package.start_weights import check_start, structure
from gxdistill.pytrees import Distilled, Params

SUMS, SIGNATURE = "SHA256SUMS", "signature.ed25519"
ARRAYS, PREVIEWS = "arrays/", "previews/"
MANIFEST, CARD = "manifest.json", "README.md"

_MAX_MANIFEST_BYTES = 1 << 20
_MAX_OTHER_BYTES = 1 << 20  # Of the card, and of each preview.
_MAX_IMAGES_BYTES = 1 << 30  # As float32: codes are a fraction of that.
_BLOCK = 1 << 20  # Numbers that are looked at at once.

DIVERGED_HERE = "Lower the learning rate of the distillation."
DIVERGED_THERE = "Nothing can be learned from it: ask the sender for another package."


@dataclasses.dataclass(frozen=True)
class Package:
    """A compressed data set with all that is needed to train on it.

    Attributes:
      distilled: images, labels and learning rates.
      manifest: what it says of itself; `save` writes `schema_version` and `arrays` itself.
      start: initial weights of a known init, a nested dict of arrays; None for a random init, and
        for a seeded one, where the seed gives them.
      sha256: of the whole, as `digest` returns it; None for what was not read from a file.
      grid: the values that the images may have, where `precision` is of codes.
    """

    distilled: Distilled
    manifest: Manifest
    start: Params | None = None
    sha256: str | None = None
    grid: precision.CodeGrid | None = None


def _check_forms(manifest: Manifest, arrays: Mapping[str, Any], where: Path) -> None:
    """Refuses arrays of other names, dtypes and shapes than the manifest asks for."""
    loop, shape = manifest.distillation, manifest.images_shape
    expected = {
        **precision.forms(manifest.precision, shape),
        "labels": ((*shape[:2], len(manifest.class_names)), "float32"),
        "log_lr": ((loop.steps * loop.epochs,), "float32"),
    }
    if 4 * math.prod(shape) > _MAX_IMAGES_BYTES:
        raise UserError(f"{where}: its images would take over {_MAX_IMAGES_BYTES} bytes. {WAY_OUT}")
    if manifest.init.rule == "seeded" and manifest.init.seed is None:
        raise UserError(f"{where}: a seeded init without a seed. {WAY_OUT}")
    start = {"start"} if manifest.init.is_packaged else set()
    for name in sorted((expected.keys() | start) ^ arrays.keys()):
        what = "must not hold" if name in arrays else "lacks"
        raise UserError(f"{where} {what} the arrays {storage.shown(name)[1:-1]}. {WAY_OUT}")
    for name, (shape_asked, dtype_asked) in expected.items():
        shape, dtype = np.shape(arrays[name]), str(getattr(arrays[name], "dtype", None))
        if (shape, dtype) != (shape_asked, dtype_asked):
            raise UserError(
                f"{where}: {name} are {dtype} {list(shape)} where the manifest's fields ask for "
                f"{dtype_asked} {list(shape_asked)}. {WAY_OUT}"
            )
    if start:
        check_start(manifest, arrays["start"], where)
    else:
        structure(manifest, where)  # Refuses what the zoo cannot make.


def check_arrays(
    manifest: Manifest, arrays: Mapping[str, Any], where: Path, *, diverged: str = DIVERGED_THERE
) -> None:
    """Refuses arrays that disagree with the manifest or hold NaN or infinity.

    Args:
      manifest: of the package.
      arrays: by their names in its file.
      where: it comes from or goes to; for messages.
      diverged: what is to be done about NaN or infinity, a sentence.

    Raises:
      UserError: naming the array or the field.
    """
    _check_forms(manifest, arrays, where)
    shape = manifest.images_shape
    for name, values in manifest.normalisation._asdict().items():
        if len(values) != shape[-1]:
            raise UserError(
                f"{where}: the manifest's field normalisation.{name} is {reprlib.repr([*values])}, "
                f"which does not fit {shape[-1]} channels. {WAY_OUT}"
            )
    if manifest.precision in precision.LEVELS and not (arrays["scale"] > 0).all():
        raise UserError(f"{where}: a scale of the images is not above 0. {WAY_OUT}")
    # Not those of the images' file: codes are finite, and what they stand for need not be.
    decoded = precision.decoded_blocks(arrays, manifest.precision, shape)
    finite = {"images": all(np.isfinite(block).all() for block in decoded)}
    for keys, array in jax.tree_util.tree_leaves_with_path({**arrays, "images": ()}):
        name = jax.tree_util.keystr(keys, simple=True, separator=".")
        flat = array.reshape(-1)
        parts = (flat[at : at + _BLOCK] for at in range(0, flat.size, _BLOCK))
        finite[name] = all(np.isfinite(part).all() for part in parts)
    for name, sound in finite.items():
        if not sound:
            raise UserError(f"{where}: {name} hold NaN or infinity: training diverged. {diverged}")


def arrays_of(package: Package) -> dict[str, Any]:
    """Returns the arrays of a package as NumPy's, by their names in a file.

    Raises:
      ValueError: the images are not of the package's precision.
    """
    data, kind = package.distilled, package.manifest.precision
    arrays: dict[str, Any] = dict(precision.encode(np.asarray(data.images), kind, package.grid))
    arrays |= {"labels": data.labels, "log_lr": data.log_lr}
    if package.start is not None:
        arrays["start"] = package.start
    return jax.tree.map(np.asarray, arrays)


def to_package(manifest: Manifest, arrays: Mapping[str, Any], sha256: str | None = None) -> Package:
    """Makes a package of the arrays of a file, checked before."""
    images, grid = precision.decode(arrays, manifest.precision, manifest.images_shape)
    if grid is not None:
        grid = precision.CodeGrid(*map(np.array, grid))
    distilled = Distilled(*map(jnp.asarray, (images, arrays["labels"], arrays["log_lr"])))
    # Copies, aligned and writable, which do not keep all of the file in memory.
    start = jax.tree.map(np.array, arrays.get("start"))
    return Package(distilled, manifest, start, sha256, grid)


def sums(members: Mapping[str, storage.Content]) -> bytes:
    """Makes the text of `SHA256SUMS`, as the command `sha256sum --check` reads it."""
    lines = [
        f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n"
        for name in sorted(members.keys() - {SUMS, SIGNATURE})
    ]
    return "".join(lines).encode()


def _check_members(members: Mapping[str, storage.Content], where: Path) -> None:
    """Refuses a set of files that is not one of a package, or that `SHA256SUMS` does not tell."""
    for name in (MANIFEST, CARD, SUMS):
        if name not in members:
            raise UserError(f"{where} is no package: there is no {name} in it. {WAY_OUT}")
    known = {MANIFEST: _MAX_MANIFEST_BYTES, CARD: _MAX_OTHER_BYTES, SIGNATURE: 64}
    for name, content in members.items():
        preview = name.startswith(PREVIEWS) and name.endswith(".png")
        preview = preview and storage.name_fault(name.removeprefix(PREVIEWS)) is None
        most = _MAX_OTHER_BYTES if preview else known.get(name)
        if most is None and name != SUMS and not name.startswith(ARRAYS):
            raise UserError(f"{where} holds {name}, which is no part of a package. {WAY_OUT}")
        if most is not None and len(content) > most:
            raise UserError(
                f"{where}: {name} is of {len(content)} bytes, and {most} are the most. {WAY_OUT}"
            )
    if members[SUMS] != sums(members):
        raise UserError(
            f"{where} was changed after it was written: the SHA-256 of its parts are not those of "
            f"{SUMS}. {WAY_OUT}"
        )


def open_members(path: Path) -> dict[str, storage.Content]:
    """Reads the files in a package, checked as far as `SHA256SUMS` goes.

    Raises:
      UserError: it cannot be read, is no package, or was damaged.
    """
    if path.is_dir():
        raise UserError(
            f"{path} is a folder, not a package. Name a file NAME.gxd; a package of schema version "
            f"1, which was a folder, is made one by `gxdistill migrate {path}`."
        )
    members = storage.unpack(storage.read_bytes(path, storage.MAX_BYTES), path)
    _check_members(members, path)
    return members


def load(path: Path) -> Package:
    """Reads a package and verifies all of it, but who signed it.

    Takes its size in memory, and the images' as float32.

    Args:
      path: its file.

    Returns:
      The package; its manifest names the arrays too.

    Raises:
      UserError: it is no package, of an unknown schema version, damaged or changed, or its arrays
        disagree with its manifest or hold NaN or infinity.
    """
    return to_package(*read(path))


def read(path: Path) -> tuple[Manifest, dict[str, Any], str]:
    """Reads and verifies what `load` does, and leaves the images as they lie in the file.

    Takes little more than its size in memory.

    Returns:
      Manifest, arrays and digest, as `to_package` takes them.

    Raises:
      UserError: as `load`.
    """
    members = open_members(path)
    table = migrate(storage.parse_json(bytes(members[MANIFEST]), f"{path}: {MANIFEST}"), path)
    check(table, path)
    manifest = from_json(Manifest, table)
    files = {n.removeprefix(ARRAYS): c for n, c in members.items() if n.startswith(ARRAYS)}
    arrays = storage.read_arrays(files, manifest.arrays, path)
    check_arrays(manifest, arrays, path)
    return manifest, arrays, hashlib.sha256(members[SUMS]).hexdigest()


def digest(path: Path) -> str:
    """Returns the SHA-256 of a package's `SHA256SUMS`, which covers all but a signature.

    Raises:
      UserError: it is no package, or was damaged.
    """
    return hashlib.sha256(open_members(path)[SUMS]).hexdigest()


def size_bytes(path: Path) -> int:
    """Returns the size of a package's file."""
    with storage.reading(path):
        return path.stat().st_size
