"""Files of essential weights, `NAME.gxw`: a trained network in a fraction of its size.

Twenty bytes of magic, the SHA-256 of all that follows, the length of the header, the header, a JSON
object by zlib, and the codes of `package.shared_values`. As a package, it is data, never code.
"""

import dataclasses
import hashlib
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.package import shared_values
from gxdistill.package.fields import WeightsManifest, from_json, to_json
from gxdistill.package.manifest import WAY_OUT, check_part, undescribed, unweighted
from gxdistill.package.start_weights import structure
from gxdistill.pytrees import Metadata

MAGIC = b"gxdistill weights 2\n"
FIELDS = tuple(field.name for field in dataclasses.fields(WeightsManifest))
_MAX_HEADER_BYTES = 1 << 20
_MAX_BYTES = 1 << 24  # Of a file: twice what 2^17 of the longest codes take.


class EssentialWeights(NamedTuple):
    """What a file of essential weights holds.

    Attributes:
      manifest: what it says of itself, with a seeded init.
      codes: to be read by `shared_values.unpack`.
      sha256: of the file's content.
    """

    manifest: WeightsManifest
    codes: bytes
    sha256: str


def save_weights(path: Path, manifest: WeightsManifest, codes: bytes) -> None:
    """Writes essential weights at one stroke; the same give the same bytes.

    Args:
      path: the file, by custom `NAME.gxw`.
      manifest: see `EssentialWeights`.
      codes: from `shared_values.pack`.

    Raises:
      UserError: the manifest is not sound, or the file cannot be written.
    """
    text = storage.json_text(to_json(manifest))
    _checked(storage.parse_json(text.encode(), path), path)
    header = zlib.compress(text.encode(), 9)
    rest = struct.pack("<L", len(header)) + header + codes
    storage.write_bytes(path, MAGIC + hashlib.sha256(rest).digest() + rest)


def is_weights(path: Path) -> bool:
    """Tells whether a file begins as one of essential weights; a folder never does."""
    if path.is_dir():
        return False
    return storage.read_head(path, len(MAGIC)) == MAGIC


def load_weights(path: Path) -> EssentialWeights:
    """Reads essential weights; the codes are checked by `check_codes`.

    Raises:
      UserError: the file holds none, or was damaged.
    """
    content = storage.read_bytes(path, _MAX_BYTES)
    rest = content[len(MAGIC) + 32 :]
    digest = hashlib.sha256(rest)
    if content[: len(MAGIC)] != MAGIC or content[len(MAGIC) :][:32] != digest.digest():
        raise UserError(f"{path} holds no essential weights, or was damaged. {WAY_OUT}")
    size = int.from_bytes(rest[:4], "little")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(rest[4 : 4 + size], _MAX_HEADER_BYTES)
    except zlib.error as error:
        raise UserError(f"{path}: its header cannot be read: {error}. {WAY_OUT}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise UserError(f"{path}: its header is cut short, or of over 1 MiB. {WAY_OUT}")
    table = storage.parse_json(text, f"{path}: its header")
    if "likeness" not in table:  # of before images were described
        table = {**undescribed(table), **table, "decision": undescribed(table)["decision"]}
    # Earlier headers knew neither ledger nor weights of a decision.
    table = {"ledger": None, **table, "decision": unweighted(table.get("decision"))}
    manifest = _checked(table, path)
    return EssentialWeights(manifest, rest[4 + size :], digest.hexdigest())


def check_codes(weights: EssentialWeights, where: Path) -> None:
    """Refuses codes that are not of the network that the file names; takes seconds at most.

    Raises:
      UserError: they are not, or there is no such network.
    """
    like = structure(weights.manifest, where)
    if like is None:
        return  # Whoever knows the network can tell.
    try:
        shared_values.unpack(weights.codes, like)
    except ValueError as error:
        raise UserError(f"{where}: {error}. {WAY_OUT}") from error


def _checked(table: Metadata, where: Path) -> WeightsManifest:
    check_part(table, FIELDS, where)
    manifest = from_json(WeightsManifest, table)
    if manifest.init.rule != "seeded" or manifest.init.seed is None:
        raise UserError(f"{where}: essential weights without the seed of their start. {WAY_OUT}")
    return manifest
