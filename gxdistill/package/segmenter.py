"""Files of trained segmenters, `NAME.gxs`: an archive as a package is, with weights.

It holds `manifest.json`, `arrays/`, `README.md` and `SHA256SUMS`; data, never code.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gxdistill import models, storage
from gxdistill.errors import UserError
from gxdistill.package.content import ARRAYS, CARD, MANIFEST, SUMS, open_members, sums
from gxdistill.package.fields import About, from_json, to_json
from gxdistill.package.manifest import WAY_OUT, check_with
from gxdistill.package.start_weights import check_start
from gxdistill.pytrees import Metadata, Params

KIND = "segmenter"
SCHEMA_VERSION = 1

_FIELDS = tuple(field.name for field in dataclasses.fields(About))
_RULES: Mapping[str, Any] = {
    "kind": {"description": f"'{KIND}'", "type": "string", "enum": [KIND]},
    "schema_version": {
        "description": str(SCHEMA_VERSION),
        "type": "integer",
        "minimum": SCHEMA_VERSION,
        "maximum": SCHEMA_VERSION,
    },
    "flips": {"$ref": "#/$defs/flag"},
    "training": {"$ref": "#/$defs/table"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterManifest(About):
    """The manifest of a segmenter.

    `class_names` are those of pixels, the background first; `patch` has the tiles: neighbouring
    ones are `stride` apart.

    Attributes:
      flips: whether predictions are averaged over the mirror images of a tile.
      training: how it was trained, as its config had it.
      kind: "segmenter".
      schema_version: of the format.
      arrays: shape, dtype and SHA-256 of each array in the file; none before it is saved.
    """

    flips: bool
    training: Metadata
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION
    arrays: Mapping[str, Metadata] = dataclasses.field(default_factory=dict)


class Segmenter(NamedTuple):
    """A trained segmenter.

    Attributes:
      manifest: what it says of itself.
      params: weights of its network.
      sha256: of its file, as `package.digest` returns it; None for what was not read from one.
    """

    manifest: SegmenterManifest
    params: Params
    sha256: str | None = None


def save_segmenter(path: Path, segmenter: Segmenter) -> None:
    """Writes a segmenter at one stroke; the same gives the same bytes.

    Args:
      path: the file, by custom `NAME.gxs`.
      segmenter: what to write.

    Raises:
      UserError: the manifest is not sound, weights are not those of its network or hold NaN or
        infinity, or the file cannot be written. A former file is then unchanged.
    """
    manifest = dataclasses.replace(segmenter.manifest, arrays={})
    arrays = {"start": jax.tree.map(np.asarray, segmenter.params)}
    with storage.scratch_folder(path) as folder:
        digests = storage.save_arrays(folder / ARRAYS, arrays)
        members: dict[str, storage.Content] = dict(storage.read_files(folder))
    manifest = dataclasses.replace(manifest, arrays=digests)
    members[MANIFEST] = storage.json_text(to_json(manifest)).encode()
    _check(storage.parse_json(bytes(members[MANIFEST]), path), arrays, path)
    members[CARD] = _card(manifest).encode()
    members[SUMS] = sums(members)
    storage.write_bytes(path, storage.pack(members))


def load_segmenter(path: Path) -> Segmenter:
    """Reads a segmenter and verifies all of it.

    Raises:
      UserError: it is no segmenter, damaged or changed, or its weights are not those of its network
        or hold NaN or infinity.
    """
    members = open_members(path)
    table = storage.parse_json(bytes(members[MANIFEST]), f"{path}: {MANIFEST}")
    if table.get("kind") != KIND:
        raise UserError(
            f"{path} is no segmenter, but another package. `gxdistill segment train` makes one."
        )
    check_with(table, (*_FIELDS, "arrays"), _RULES, path)
    files = {n.removeprefix(ARRAYS): c for n, c in members.items() if n.startswith(ARRAYS)}
    arrays = storage.read_arrays(files, table["arrays"], path)
    manifest = _check(table, arrays, path)
    params = jax.tree.map(np.array, arrays["start"])
    return Segmenter(manifest, params, hashlib.sha256(members[SUMS]).hexdigest())


def _check(table: Metadata, arrays: Mapping[str, Any], where: Path) -> SegmenterManifest:
    check_with(table, (*_FIELDS, "arrays"), _RULES, where)
    manifest = from_json(SegmenterManifest, table)
    if manifest.network.name not in models.SEGMENTERS:
        raise UserError(
            f"{where}: its network is {storage.shown(manifest.network.name)}; known are "
            f"{', '.join(models.SEGMENTERS)}. {WAY_OUT}"
        )
    patch, counts = manifest.patch, map(len, manifest.normalisation)
    if patch.stride > patch.size:
        raise UserError(f"{where}: tiles of {patch.size} px {patch.stride} px apart. {WAY_OUT}")
    if {*counts} != {patch.channels}:
        raise UserError(
            f"{where}: its normalisation does not fit {patch.channels} channels. {WAY_OUT}"
        )
    if arrays.keys() != {"start"}:
        raise UserError(f"{where}: its arrays are not the weights of one network. {WAY_OUT}")
    check_start(manifest, arrays["start"], where, models.SEGMENTERS)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays["start"])):
        raise UserError(f"{where}: its weights hold NaN or infinity. Lower the learning rate.")
    return manifest


def _card(manifest: SegmenterManifest) -> str:
    """Says for people what the file is."""
    patch = manifest.patch
    return (
        f"# {manifest.name}\n\nA trained segmenter: {manifest.network.name}, for the classes "
        f"{', '.join(manifest.class_names)}.\n\nPurpose: {manifest.purpose}\n\nLicence: "
        f"{manifest.licence}\n\nPrivacy: {manifest.privacy}\n\nImages were {patch.image_height} x "
        f"{patch.image_width} pixels with {patch.channels} channels, seen in tiles of "
        f"{patch.size} pixels.\n\n`gxdistill segment predict --package=FILE.gxs IMAGE...` uses it."
        f"\n"
    )
