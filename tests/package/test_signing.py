import hashlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from gxdistill import package
from gxdistill.errors import UserError
from tests import keys
from tests.packages import content_bits, members, repack


def test_a_signature_tells_the_signer_and_changes_nothing_else(copy, tmp_path):
    private, public = keys.write_pair(tmp_path)
    before, digest, loaded = members(copy), package.digest(copy), package.load(copy)
    raw = serialization.load_pem_public_key(public.read_bytes()).public_bytes_raw()
    assert package.sign(copy, private) == hashlib.sha256(raw).hexdigest()
    assert package.verify(copy, public)[1:] == (True, hashlib.sha256(raw).hexdigest())
    assert package.verify(copy)[1:] == (True, None)
    after = members(copy)
    assert len(after.pop("signature.ed25519")) == 64
    assert after == before
    assert package.digest(copy) == digest
    assert content_bits(package.load(copy)) == content_bits(loaded)
    assert "signature       there is one" in package.describe(package.load(copy), copy)
    # Ed25519 draws nothing: the same key gives the same bytes.
    once = copy.read_bytes()
    package.sign(copy, private)
    assert copy.read_bytes() == once


def test_the_signature_is_that_of_rfc_8032(copy, tmp_path):
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # Section 7.1
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    fingerprint = package.sign(copy, keys.write(tmp_path, "rfc", key)[0])
    assert fingerprint == hashlib.sha256(bytes.fromhex(public)).hexdigest()
    files = members(copy)
    assert files["signature.ed25519"] == key.sign(files["SHA256SUMS"])


@pytest.mark.slow
def test_openssl_alone_checks_it(copy, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl")

    def openssl(*arguments):
        return subprocess.run(["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "private.pem")
    openssl("pkey", "-in", "private.pem", "-pubout", "-out", "public.pem")
    package.sign(copy, tmp_path / "private.pem")
    package.verify(copy, tmp_path / "public.pem")
    with zipfile.ZipFile(copy) as file:
        file.extractall(tmp_path)
    check = ["pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin"]
    check += ["-in", "SHA256SUMS", "-sigfile", "signature.ed25519"]
    assert openssl(*check).stdout == "Signature Verified Successfully\n"
    (tmp_path / "SHA256SUMS").write_text("x")
    assert openssl(*check).returncode == 1


def test_whatever_was_not_signed_so_is_refused(copy, tmp_path):
    private, public = keys.write_pair(tmp_path)
    with pytest.raises(UserError, match=r"is not signed\. Ask the sender for a signed copy"):
        package.verify(copy, public)
    package.sign(copy, private)
    signed = copy.read_bytes()
    other = keys.write_pair(tmp_path, "other")[1]
    with pytest.raises(UserError, match=r"was not signed with the key of .*other\.pub\.pem"):
        package.verify(copy, other)
    for harm in (
        lambda files: files.update({"README.md": b"lies"}),
        lambda files: files.update({"signature.ed25519": bytes(64)}),
        lambda files: files.update({"signature.ed25519": b"short"}),
        lambda files: files.update(
            {"manifest.json": files["manifest.json"].replace(b"0.4375", b"0.5375")}
        ),
    ):
        repack(copy, harm)
        package.load(copy)  # whole, but the sender's no more
        with pytest.raises(UserError, match="was not signed with the key of"):
            package.verify(copy, public)
        copy.write_bytes(signed)
    package.verify(copy, public)
    assert package.sign(copy, keys.write_pair(tmp_path, "other")[0])
    with pytest.raises(UserError, match="was not signed with the key of"):
        package.verify(copy, public)


def test_keys_that_cannot_be_used_are_refused(copy, tmp_path):
    private, public = keys.write_pair(tmp_path)
    before = copy.read_bytes()
    locked = keys.write(
        tmp_path,
        "locked",
        ed25519.Ed25519PrivateKey.generate(),
        serialization.BestAvailableEncryption(b"secret"),
    )
    kind = keys.write_pair_of_another_kind(tmp_path)
    (tmp_path / "junk").write_text("junk")
    for key in (public, locked[0], kind[0], tmp_path / "junk", tmp_path / "none", tmp_path):
        with pytest.raises(UserError) as caught:
            package.sign(copy, key)
        assert str(key) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert copy.read_bytes() == before
    package.sign(copy, private)
    for key in (private, kind[1], tmp_path / "junk", tmp_path / "none"):
        with pytest.raises(UserError) as caught:
            package.verify(copy, key)
        assert str(key) in str(caught.value)


def test_without_the_library_it_is_named(copy, tmp_path, monkeypatch):
    private, public = keys.write_pair(tmp_path)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    for call in (lambda: package.sign(copy, private), lambda: package.verify(copy, public)):
        with pytest.raises(UserError, match="pip install cryptography"):
            call()
    assert package.verify(copy)[1:] == (False, None)


def test_a_damaged_package_is_not_signed(copy, tmp_path):
    content = bytearray(copy.read_bytes())
    content[200] ^= 1
    copy.write_bytes(content)
    with pytest.raises(UserError):
        package.sign(copy, keys.write_pair(tmp_path)[0])
    assert copy.read_bytes() == content
