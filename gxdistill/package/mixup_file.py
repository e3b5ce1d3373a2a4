"""Files of both sides of mixing, `NAME.gxm`: an archive as a package is, with weights.

The server's holds its network. The client's holds the network that un-mixes, the public references
and the digest of the server's file, so that no other server is asked. Data, never code.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gxdistill import models, storage
from gxdistill.errors import UserError
from gxdistill.mixup.unmixing import input_channels
from gxdistill.models.cached import cached_network
from gxdistill.package.content import ARRAYS, CARD, MANIFEST, SUMS, open_members, sums
from gxdistill.package.manifest import WAY_OUT
from gxdistill.pytrees import Metadata, Network, Params

SERVER, CLIENT = "mixup server", "mixup client"
KINDS = (SERVER, CLIENT)
SCHEMA_VERSION = 1
_MAX_SIDE, _MAX_CLASSES, _MAX_TEXT = 1 << 12, 1 << 8, 1 << 12


@dataclasses.dataclass(frozen=True)
class MixupManifest:
    """What a file says of itself.

    Attributes:
      kind: "mixup server" or "mixup client".
      name: of the run.
      privacy: what is promised, and what is not.
      network: name in the zoo.
      options: of the network.
      shape: of a slice, `(H, W, C)`.
      class_names: of the K classes of pixels.
      law: of the client: lowest and highest share of an image in its mixture.
      server: of the client: digest of the server's file.
      schema_version: of the format.
      arrays: shape, dtype and SHA-256 of each array; none before it is saved.
    """

    kind: str
    name: str
    privacy: str
    network: str
    options: Metadata
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    law: tuple[float, float] = (0.0, 0.0)
    server: str = ""
    schema_version: int = SCHEMA_VERSION
    arrays: Mapping[str, Metadata] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class MixupFile:
    """A side of mixing.

    Attributes:
      manifest: what it says of itself.
      params: weights of its network.
      images: of the client: references, `[R, S, H, W]` uint8; None of the server.
      labels: of the client: class of each of their pixels, of the same shape.
      digest: of the file, as `package.digest` returns it; "" of what was not read from one.
    """

    manifest: MixupManifest
    params: Params
    images: np.ndarray | None = None
    labels: np.ndarray | None = None
    digest: str = ""

    @property
    def network(self) -> Network:
        """The functions of its network."""
        return network_of(self.manifest)


def network_of(manifest: MixupManifest) -> Network:
    """Returns the network that a manifest names.

    Raises:
      UserError: the zoo has none such.
    """
    height, width, channels = manifest.shape
    classes = len(manifest.class_names)
    if manifest.kind == CLIENT:
        channels = input_channels(channels, classes)
    return cached_network(manifest.network, manifest.options, (height, width, channels), classes)


def is_mixup_file(members: Mapping[str, storage.Content]) -> bool:
    """Tells whether an archive is of a side of mixing, by its manifest; unsound ones are not."""
    try:
        return storage.parse_json(bytes(members[MANIFEST]), MANIFEST).get("kind") in KINDS
    except UserError:
        return False


def save(path: Path, file: MixupFile) -> str:
    """Writes a file at one stroke; the same gives the same bytes.

    Returns:
      Its digest.

    Raises:
      UserError: the weights are not those of its network, or hold NaN or infinity, or the file
        cannot be written. A former file is then unchanged.
    """
    arrays: dict[str, Any] = {"weights": jax.tree.map(np.asarray, file.params)}
    if file.images is not None:
        arrays |= {"images": np.asarray(file.images), "labels": np.asarray(file.labels)}
    _check_arrays(file.manifest, arrays, path)
    with storage.scratch_folder(path) as folder:
        digests = storage.save_arrays(folder / ARRAYS, arrays)
        members: dict[str, storage.Content] = dict(storage.read_files(folder))
    manifest = dataclasses.replace(file.manifest, arrays=digests)
    members[MANIFEST] = storage.json_text(dataclasses.asdict(manifest)).encode()
    _read_manifest(storage.parse_json(bytes(members[MANIFEST]), path), path)
    members[CARD] = f"# {manifest.name}: {manifest.kind}\n\n{manifest.privacy}\n".encode()
    members[SUMS] = sums(members)
    storage.write_bytes(path, storage.pack(members))
    return hashlib.sha256(members[SUMS]).hexdigest()


def load(path: Path, kind: str) -> MixupFile:
    """Reads a file and verifies all of it, but who signed it.

    Args:
      path: the file.
      kind: that it must be of, `SERVER` or `CLIENT`.

    Raises:
      UserError: it is another, damaged or changed, or its weights are not those of its network or
        hold NaN or infinity.
    """
    members = open_members(path)
    table = storage.parse_json(bytes(members[MANIFEST]), f"{path}: {MANIFEST}")
    if table.get("kind") != kind:
        raise UserError(
            f"{path} is no {kind}, but another package. `gxdistill mixup train` makes one."
        )
    manifest = _read_manifest(table, path)
    files = {n.removeprefix(ARRAYS): c for n, c in members.items() if n.startswith(ARRAYS)}
    arrays = storage.read_arrays(files, dict(manifest.arrays), path)
    _check_arrays(manifest, arrays, path)
    params = jax.tree.map(np.array, arrays["weights"])
    images, labels = (
        np.array(arrays[name]) if name in arrays else None for name in ("images", "labels")
    )
    digest = hashlib.sha256(members[SUMS]).hexdigest()
    return MixupFile(manifest, params, images, labels, digest)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 0 < value <= most


_FIELDS = tuple(field.name for field in dataclasses.fields(MixupManifest))


def _read_manifest(table: Metadata, where: Path) -> MixupManifest:
    if sorted(table) != sorted(_FIELDS) or table["schema_version"] != SCHEMA_VERSION:
        raise UserError(f"{where}: its manifest has not the fields of version 1. {WAY_OUT}")
    shape, names, law = table["shape"], table["class_names"], table["law"]
    is_client = table["kind"] == CLIENT
    sound = {
        "kind": table["kind"] in KINDS,
        "text": all(_is_text(table[name]) for name in ("name", "privacy", "network", "server")),
        "options": isinstance(table["options"], dict) and isinstance(table["arrays"], dict),
        "shape": isinstance(shape, list)
        and len(shape) == 3
        and all(_is_count(side, _MAX_SIDE) for side in shape),
        "class_names": isinstance(names, list)
        and 2 <= len(names) <= _MAX_CLASSES
        and all(map(_is_text, names)),
        "law": isinstance(law, list)
        and len(law) == 2
        and all(type(bound) is float for bound in law)
        and (not is_client or 0 < law[0] <= law[1] < 1),
    }
    for name, is_sound in sound.items():
        if not is_sound:
            raise UserError(f"{where}: the manifest's {name} is unsound. {WAY_OUT}")
    if table["network"] not in models.SEGMENTERS:
        raise UserError(
            f"{where}: its network is {storage.shown(table['network'])}; known are "
            f"{', '.join(models.SEGMENTERS)}. {WAY_OUT}"
        )
    tuples = {"shape": tuple(shape), "class_names": tuple(names), "law": tuple(law)}
    return MixupManifest(**{**table, **tuples})


def _forms(tree: Params) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        jax.tree_util.keystr(path): (np.shape(leaf), str(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _check_arrays(manifest: MixupManifest, arrays: Mapping[str, Any], where: Path) -> None:
    is_client = manifest.kind == CLIENT
    names = {"weights", "images", "labels"} if is_client else {"weights"}
    if arrays.keys() != names:
        raise UserError(f"{where}: its arrays are not {', '.join(sorted(names))}. {WAY_OUT}")
    wanted = jax.eval_shape(network_of(manifest).init, jax.random.key(0))
    if _forms(arrays["weights"]) != _forms(wanted):
        raise UserError(f"{where}: its weights are not those of its network. {WAY_OUT}")
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays["weights"])):
        raise UserError(f"{where}: its weights hold NaN or infinity. Lower the learning rate.")
    if not is_client:
        return
    images, labels = arrays["images"], arrays["labels"]
    fits = (
        images.ndim == 4
        and images.size
        and images.shape[2:] == manifest.shape[:2]
        and labels.shape == images.shape
        and images.dtype == labels.dtype == np.uint8
        and labels.max() < len(manifest.class_names)
    )
    if not fits:
        raise UserError(f"{where}: its references do not fit its manifest. {WAY_OUT}")
