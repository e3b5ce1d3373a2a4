"""Keys to sign with."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519


def write_pair(folder, name="key"):
    """Writes a fresh Ed25519 key, private and public, as OpenSSL does; returns both paths."""
    return write(folder, name, ed25519.Ed25519PrivateKey.generate())


def write_pair_of_another_kind(folder):
    """Writes keys that cannot sign."""
    return write(folder, "other_kind", x25519.X25519PrivateKey.generate())


def write(folder, name, key, encryption=None):
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    encryption = encryption or serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, pkcs8, encryption))
    public.write_bytes(key.public_key().public_bytes(pem, info))
    return private, public
