"""Certificates for a trial or a test: an authority that signs one server and is then forgotten."""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gxdistill import storage
from gxdistill.errors import UserError

DAYS = 90
_USAGES = (  # Of a key, in the order of `x509.KeyUsage`.
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


class Certificates(NamedTuple):
    """Files of PEM.

    Attributes:
      authority: for the clients.
      server: the server's certificate.
      key: its private key, which only its owner may read.
    """

    authority: Path
    server: Path
    key: Path


def make(folder: Path, hosts: Sequence[str], days: int = DAYS) -> Certificates:
    """Writes `ca.pem`, and `server.pem` with `server.key`, signed by it.

    The authority's own key is never written: nothing else can ever be signed with it.

    Args:
      folder: to write.
      hosts: names and addresses under which clients know the server, at least one.
      days: for which they hold.

    Raises:
      UserError: the library `cryptography` is missing, a host is none, or the folder cannot be
        written, or holds a key already.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        raise UserError(
            "Certificates need the library cryptography, which is not installed. Install it by "
            "`pip install cryptography`."
        ) from error
    files = Certificates(*(folder / name for name in ("ca.pem", "server.pem", "server.key")))
    if files.key.exists():
        raise UserError(f"{files.key} is there already. Name another folder, or remove it.")
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.datetime.now(datetime.UTC)
    subjects = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        for text in ("gxdistill trial authority", "gxdistill server")
    ]

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subjects[0])
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    names = x509.SubjectAlternativeName([_name(host) for host in hosts])
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    root = _as_authority(builder(subjects[0], authority.public_key()), authority.public_key())
    leaf = (
        builder(subjects[1], server.public_key())
        .add_extension(names, critical=False)
        .add_extension(signer, critical=False)
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for path, builder_of in ((files.authority, root), (files.server, leaf)):
        signed = builder_of.sign(authority, hashes.SHA256())
        storage.write_bytes(path, signed.public_bytes(pem))
    write_secret(files.key, server.private_bytes(pem, *form))
    return files


def _as_authority(builder: Any, key: Any) -> Any:
    """Makes a certificate one that signs others, as strictly as Python wants it from 3.13 on."""
    from cryptography import x509

    usage = x509.KeyUsage(*(name == "key_cert_sign" for name in _USAGES))
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(host: str):  # type: ignore[no-untyped-def]  # A class of an optional library.
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise UserError(f"{storage.shown(host)} is no host's name: {error}.") from error


def write_secret(path: Path, content: bytes) -> None:
    """Writes a new file that only its owner may read.

    Raises:
      UserError: it cannot be written, or is there already.
    """
    with storage.writing(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
