"""Keys by which the server of a federation knows its sites."""

from pathlib import Path
from typing import NamedTuple

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.service.certificates import write_secret

PUBLIC = ".pub"
_MAX_BYTES = 1 << 14  # Of a key.


class KeyPair(NamedTuple):
    """Files of PEM.

    Attributes:
      private: of the site alone; only its owner may read it.
      public: for the server's operator.
    """

    private: Path
    public: Path


def make(folder: Path, name: str) -> KeyPair:
    """Makes the keys of a site, `NAME.key` and `NAME.pub`, of the curve P-384.

    Args:
      folder: to write.
      name: of the site.

    Raises:
      UserError: the library `cryptography` is missing, the name cannot be a file's, or the key is
        there already.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise UserError(
            "Keys need the library cryptography, which is not installed. Install it by "
            "`pip install cryptography`."
        ) from error
    fault = storage.name_fault(name)
    if fault:
        raise UserError(f"--site is {storage.shown(name)}, which {fault}. Choose another name.")
    files = KeyPair(folder / f"{name}.key", folder / f"{name}{PUBLIC}")
    if files.private.exists():
        raise UserError(f"{files.private} is there already. Name another folder, or remove it.")
    key = ec.generate_private_key(ec.SECP384R1())
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    storage.write_bytes(files.public, public)
    write_secret(files.private, key.private_bytes(pem, *form))
    return files


def read_registered(folder: Path) -> dict[str, bytes]:
    """Reads the public key of each site that may take part, by its name, in their order.

    Args:
      folder: with a file `NAME.pub` of each.

    Raises:
      UserError: there is no such folder, or no key in it.
    """
    with storage.reading(folder):
        files = sorted(path for path in folder.iterdir() if path.suffix == PUBLIC)
    if not files:
        raise UserError(
            f"{folder} holds no key of a site. Put the file NAME{PUBLIC} of each site there, which "
            f"it makes by `gxdistill federate key --site=NAME`."
        )
    return {path.stem: storage.read_bytes(path, _MAX_BYTES) for path in files}
