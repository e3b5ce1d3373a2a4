"""Who made a package: Ed25519 signatures (RFC 8032) of its `SHA256SUMS`.

Keys are PEM files, as OpenSSL makes and reads them. The library `cryptography` is an extra.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.package.content import SIGNATURE, SUMS, open_members, read
from gxdistill.package.fields import About
from gxdistill.package.mixup_file import is_mixup_file
from gxdistill.package.weights_file import check_codes, is_weights, load_weights

_MAX_KEY_BYTES = 1 << 16
_MAKE = "Make one by `openssl genpkey -algorithm ed25519 -out private.pem`"


def _library() -> tuple[ModuleType, ModuleType]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UserError(
            "Signatures need the library cryptography, which is not installed. Install it by "
            "`pip install cryptography`."
        ) from error
    return serialization, ed25519


@contextlib.contextmanager
def _reading_key(path: Path, way_out: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever the parsers of keys stumble upon
        raise UserError(f"{path} holds no key that can be used: {error}. {way_out}") from error


def _fingerprint(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()


def sign(path: Path, key: Path) -> str:
    """Puts a signature into a package, in place of one that is there; nothing else changes.

    Args:
      path: file of the package.
      key: private Ed25519 key, PEM without a pass phrase.

    Returns:
      SHA-256 of the raw public key, to be told to receivers on another way.

    Raises:
      UserError: the package or the key cannot be read, or the package not be written.
    """
    serialization, ed25519 = _library()
    members = open_members(path)
    if not is_mixup_file(members):
        read(path)
    content = storage.read_bytes(key, _MAX_KEY_BYTES)
    way_out = f"{_MAKE}, and keep it to yourself."
    with _reading_key(key, way_out):
        private = serialization.load_pem_private_key(content, password=None)
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise UserError(f"{key} holds no Ed25519 key. {way_out}")
    signed = dict(members)
    signed[SIGNATURE] = private.sign(bytes(signed[SUMS]))
    storage.write_bytes(path, storage.pack(signed))
    return _fingerprint(private.public_key().public_bytes_raw())


class Verified(NamedTuple):
    """What is known of a file that was verified.

    Attributes:
      manifest: what it says of itself.
      signed: whether there is a signature.
      signer: SHA-256 of the raw public key whose holder signed it; None where no key was given.
    """

    manifest: About
    signed: bool
    signer: str | None


def verify(path: Path, key: Path | None = None) -> Verified:
    """Verifies a package, or essential weights, as `load` does, and who signed it.

    Takes at most twice the file's size in memory beside what little the manifest takes: images stay
    as they are stored.

    Args:
      path: file of the package; one of essential weights bears no signature.
      key: the sender's public Ed25519 key, PEM; None does not ask who signed it.

    Returns:
      What was proved.

    Raises:
      UserError: as `load`; or the key cannot be read, or the signature is missing or not of it.
    """
    if is_weights(path):
        weights = load_weights(path)
        check_codes(weights, path)
        if key is not None:
            raise UserError(
                f"{path} holds essential weights, which nobody can sign. Leave --key out."
            )
        return Verified(weights.manifest, False, None)
    manifest = read(path)[0]
    members = open_members(path)
    signer = None if key is None else _signer(members, path, key)
    return Verified(manifest, SIGNATURE in members, signer)


def check_signer(path: Path, key: Path) -> str:
    """Refuses an archive that the holder of a key has not signed, whatever is in it.

    Args:
      path: of the archive.
      key: the sender's public Ed25519 key, PEM.

    Returns:
      SHA-256 of the raw public key.

    Raises:
      UserError: it is damaged, not signed, or signed with another key.
    """
    return _signer(open_members(path), path, key)


def _signer(members: Mapping[str, storage.Content], path: Path, key: Path) -> str:
    serialization, ed25519 = _library()
    from cryptography.exceptions import InvalidSignature

    content = storage.read_bytes(key, _MAX_KEY_BYTES)
    way_out = "Ask the sender for the public key, which `openssl pkey -pubout` writes."
    with _reading_key(key, way_out):
        public = serialization.load_pem_public_key(content)
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise UserError(f"{key} holds no public Ed25519 key. {way_out}")
    if SIGNATURE not in members:
        raise UserError(f"{path} is not signed. Ask the sender for a signed copy.")
    try:
        public.verify(bytes(members[SIGNATURE]), bytes(members[SUMS]))
    except InvalidSignature as error:
        raise UserError(
            f"{path} was not signed with the key of {key}, or was changed since. Trust neither "
            f"before you have asked the sender."
        ) from error
    return _fingerprint(public.public_bytes_raw())
