"""Keys of sites: a pair that belongs together, of which half stays secret."""

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gxdistill.errors import UserError
from gxdistill.tasks.federation import keys


def test_the_registered_key_verifies_what_the_secret_one_signed(tmp_path):
    pair = keys.make(tmp_path, "north")
    assert pair.private.stat().st_mode & 0o777 == 0o600
    private = serialization.load_pem_private_key(pair.private.read_bytes(), None)
    registered = keys.read_registered(tmp_path)
    assert registered == {"north": pair.public.read_bytes()}
    public = serialization.load_pem_public_key(registered["north"])
    public.verify(private.sign(b"x", ec.ECDSA(hashes.SHA256())), b"x", ec.ECDSA(hashes.SHA256()))


def test_sites_are_in_the_order_of_their_names(tmp_path):
    for name in ("south", "east", "North"):
        keys.make(tmp_path, name)
    assert list(keys.read_registered(tmp_path)) == ["North", "east", "south"]


def test_a_key_is_never_replaced_nor_a_name_a_path(tmp_path):
    before = keys.make(tmp_path, "north").private.read_bytes()
    with pytest.raises(UserError, match=r"north.key is there already"):
        keys.make(tmp_path, "north")
    assert (tmp_path / "north.key").read_bytes() == before
    with pytest.raises(UserError, match="which holds a slash"):
        keys.make(tmp_path, "../south")


def test_a_folder_without_keys_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no key of a site"):
        keys.read_registered(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        keys.read_registered(tmp_path / "nowhere")
