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
from tests.packages import content_bits, make, members, repack


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "tiny.gxd"
    package.save(path, make())
    return path


def test_a_signature_tells_the_signer_and_changes_nothing_else(made, tmp_path):
    private, public = keys.write_pair(tmp_path)
    before, digest, loaded = members(made), package.digest(made), package.load(made)
    raw = serialization.load_pem_public_key(public.read_bytes()).public_bytes_raw()
    assert package.sign(made, private) == hashlib.sha256(raw).hexdigest()
    assert package.verify(made, public) == hashlib.sha256(raw).hexdigest()
    assert package.verify(made) is None
    after = members(made)
    assert len(after.pop("signature.ed25519")) == 64
    assert after == before
    assert package.digest(made) == digest
    assert content_bits(package.load(made)) == content_bits(loaded)
    assert "signature       there is one" in package.describe(package.load(made), made)
    # Ed25519 draws nothing: the same key gives the same bytes.
    once = made.read_bytes()
    package.sign(made, private)
    assert made.read_bytes() == once


def test_the_signature_is_that_of_rfc_8032(made, tmp_path):
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # Section 7.1
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    fingerprint = package.sign(made, keys.write(tmp_path, "rfc", key)[0])
    assert fingerprint == hashlib.sha256(bytes.fromhex(public)).hexdigest()
    files = members(made)
    assert files["signature.ed25519"] == key.sign(files["SHA256SUMS"])


@pytest.mark.slow
def test_openssl_alone_checks_it(made, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl")

    def openssl(*arguments):
        return subprocess.run(["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "private.pem")
    openssl("pkey", "-in", "private.pem", "-pubout", "-out", "public.pem")
    package.sign(made, tmp_path / "private.pem")
    package.verify(made, tmp_path / "public.pem")
    with zipfile.ZipFile(made) as file:
        file.extractall(tmp_path)
    check = ["pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin"]
    check += ["-in", "SHA256SUMS", "-sigfile", "signature.ed25519"]
    assert openssl(*check).stdout == "Signature Verified Successfully\n"
    (tmp_path / "SHA256SUMS").write_text("x")
    assert openssl(*check).returncode == 1


def test_whatever_was_not_signed_so_is_refused(made, tmp_path):
    private, public = keys.write_pair(tmp_path)
    with pytest.raises(UserError, match=r"is not signed\. Ask the sender for a signed copy"):
        package.verify(made, public)
    package.sign(made, private)
    signed = made.read_bytes()
    other = keys.write_pair(tmp_path, "other")[1]
    with pytest.raises(UserError, match=r"was not signed with the key of .*other\.pub\.pem"):
        package.verify(made, other)
    for harm in (
        lambda files: files.update({"README.md": b"lies"}),
        lambda files: files.update({"signature.ed25519": bytes(64)}),
        lambda files: files.update({"signature.ed25519": b"short"}),
        lambda files: files.update(
            {"manifest.json": files["manifest.json"].replace(b"0.4375", b"0.5375")}
        ),
    ):
        repack(made, harm)
        package.load(made)  # whole, but the sender's no more
        with pytest.raises(UserError, match="was not signed with the key of"):
            package.verify(made, public)
        made.write_bytes(signed)
    package.verify(made, public)
    assert package.sign(made, keys.write_pair(tmp_path, "other")[0])
    with pytest.raises(UserError, match="was not signed with the key of"):
        package.verify(made, public)


def test_keys_that_cannot_be_used_are_refused(made, tmp_path):
    private, public = keys.write_pair(tmp_path)
    before = made.read_bytes()
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
            package.sign(made, key)
        assert str(key) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert made.read_bytes() == before
    package.sign(made, private)
    for key in (private, kind[1], tmp_path / "junk", tmp_path / "none"):
        with pytest.raises(UserError) as caught:
            package.verify(made, key)
        assert str(key) in str(caught.value)


def test_without_the_library_the_extra_is_named(made, tmp_path, monkeypatch):
    private, public = keys.write_pair(tmp_path)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    for call in (lambda: package.sign(made, private), lambda: package.verify(made, public)):
        with pytest.raises(UserError, match=r"pip install 'gxdistill\[sign\]'"):
            call()
    assert package.verify(made) is None


def test_a_damaged_package_is_not_signed(made, tmp_path):
    content = bytearray(made.read_bytes())
    content[200] ^= 1
    made.write_bytes(content)
    with pytest.raises(UserError):
        package.sign(made, keys.write_pair(tmp_path)[0])
    assert made.read_bytes() == content
