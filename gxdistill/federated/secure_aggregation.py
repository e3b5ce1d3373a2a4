"""Sums of which the server sees the sum alone: each site's update is masked by every other site.

Bonawitz et al. 2017, https://doi.org/10.1145/3133956.3133982, its protocol for a server that keeps
to it but is curious; who could forge the sites' public keys on their way is not kept out here, that
is for the connection to do. A round has four steps:

1. Each site makes two pairs of keys (`make_keys`) and sends the public halves; the server passes
   all on.
2. Each site splits what its masks are made of into shares, one for each site, sealed for that one
   (`share_secrets`); the server passes them on.
3. Each site adds to its update a mask of its own and one for each other site, which that site
   subtracts (`mask_values`), and sends it.
4. The sites that are left give the server the shares of the own masks of those that sent, and of
   the keys of those that did not (`reveal`), never both of one site; the server takes the masks
   off the sum (`unmask`), or refuses the round where too few sites are left.

Keys serve one round: where a site drops out, the others tell the server its key.
"""

import dataclasses
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gxdistill.errors import UserError
from gxdistill.federated import shamir

_MASK, _SEAL, _OWN = b"mask", b"seal", b"own"


class PublicKeys(NamedTuple):
    """What all may know of a site.

    Attributes:
      mask: X25519, of which with another site's the mask between both is made; 32 bytes.
      seal: X25519, by which shares are sealed on their way through the server; 32 bytes.
    """

    mask: bytes
    seal: bytes


@dataclasses.dataclass(frozen=True)
class SiteKeys:
    """The secrets of a site in one round.

    Attributes:
      site: its number.
      mask: private half of `PublicKeys.mask`.
      seal: private half of `PublicKeys.seal`.
      seed: of the site's own mask; 32 bytes.
    """

    site: int
    mask: bytes
    seal: bytes
    seed: bytes

    @property
    def public(self) -> PublicKeys:
        """What the site sends."""
        return PublicKeys(_public(self.mask), _public(self.seal))


class Revealed(NamedTuple):
    """What a site tells of others at the end of a round.

    Attributes:
      holder: the site that tells.
      seeds: by site that sent, a share of its seed.
      keys: by site that dropped out, a share of its private key of masks.
    """

    holder: int
    seeds: dict[int, bytes]
    keys: dict[int, bytes]


def make_keys(site: int) -> SiteKeys:
    """Draws the secrets of a site for one round, by the system's generator."""
    return SiteKeys(site, *(secrets.token_bytes(32) for _ in range(3)))


def share_secrets(
    keys: SiteKeys, publics: Mapping[int, PublicKeys], threshold: int, round_name: bytes
) -> dict[int, bytes]:
    """Splits seed and key of masks among all sites, each share sealed for its holder.

    Args:
      keys: of the site.
      publics: of all sites, by number.
      threshold: number of sites that must be left at the end; above half, so that no two halves
        of the sites can be told different stories.
      round_name: of this round alone.

    Returns:
      For each site a sealed pair of shares.

    Raises:
      ValueError: the threshold is not above half of the sites, or above all.
    """
    if not len(publics) < 2 * threshold <= 2 * len(publics):
        raise ValueError(
            f"`threshold` is {threshold}; of {len(publics)} sites it must be more than half, and "
            f"not more than all."
        )
    holders = sorted(publics)
    seeds = shamir.split(keys.seed, holders, threshold)
    privates = shamir.split(keys.mask, holders, threshold)
    return {
        holder: _cipher(keys.seal, publics[holder].seal, round_name).encrypt(
            _nonce(keys.site, holder), seeds[holder] + privates[holder], None
        )
        for holder in holders
    }


def mask_values(
    keys: SiteKeys, publics: Mapping[int, PublicKeys], values: np.ndarray, round_name: bytes
) -> np.ndarray:
    """Masks an update.

    Args:
      keys: of the site.
      publics: of all sites, by number.
      values: of `fixed_point.FixedPoint.encode`, `[P]` uint64.
      round_name: of this round alone.

    Returns:
      The values plus the masks modulo 2^64, uniform to who lacks a mask; `[P]` uint64.
    """
    masked = values + _stream(_derive(keys.seed, _OWN, round_name), len(values))
    for other, public in publics.items():
        if other != keys.site:
            mask = _between(keys.mask, public.mask, round_name, len(values))
            masked = masked + mask if keys.site < other else masked - mask
    return masked


def reveal(
    keys: SiteKeys,
    publics: Mapping[int, PublicKeys],
    sealed: Mapping[int, bytes],
    sent: Collection[int],
    round_name: bytes,
) -> Revealed:
    """Opens the shares that the server needs to take the masks off the sum.

    Args:
      keys: of the site that opens.
      publics: of all sites, by number.
      sealed: shares for this site, by the site that made them.
      sent: the sites whose masked updates the server says it has; each site answers once a round,
        for two answers could open both halves of a site.
      round_name: of this round alone.

    Raises:
      UserError: a share was changed on its way.
    """
    from cryptography.exceptions import InvalidTag

    seeds, privates = {}, {}
    for site, text in sealed.items():
        cipher = _cipher(keys.seal, publics[site].seal, round_name)
        try:
            opened = cipher.decrypt(_nonce(site, keys.site), text, None)
        except InvalidTag as error:
            raise UserError(
                f"The share of site {site} for site {keys.site} was damaged on its way. Start the "
                f"round anew."
            ) from error
        if site in sent:
            seeds[site] = opened[: shamir.SHARE_BYTES]
        else:
            privates[site] = opened[shamir.SHARE_BYTES :]
    return Revealed(keys.site, seeds, privates)


def unmask(
    masked: Mapping[int, np.ndarray],
    publics: Mapping[int, PublicKeys],
    revealed: Sequence[Revealed],
    threshold: int,
    round_name: bytes,
) -> np.ndarray:
    """Adds up masked updates, and takes off the masks that do not cancel.

    Args:
      masked: of the sites that sent, `[P]` uint64 each.
      publics: of all sites, by number.
      revealed: what the sites that are left told.
      threshold: of `share_secrets`.
      round_name: of this round alone.

    Returns:
      The sum of the values of the sites that sent, modulo 2^64; `[P]` uint64.

    Raises:
      UserError: fewer than `threshold` sites are left.
    """
    for what, left in (("sent", len(masked)), ("are left", len(revealed))):
        if left < threshold:
            raise UserError(
                f"{left} of {len(publics)} sites {what}, where {threshold} must: the round is "
                f"refused, and nothing of it can be read. Start a new one."
            )
    total = np.stack(list(masked.values())).sum(axis=0, dtype=np.uint64)
    size = len(total)
    for site in masked:
        seed = shamir.join({part.holder: part.seeds[site] for part in revealed})
        total -= _stream(_derive(seed, _OWN, round_name), size)
    for site in publics.keys() - masked.keys():
        private = shamir.join({part.holder: part.keys[site] for part in revealed})
        for other in masked:
            mask = _between(private, publics[other].mask, round_name, size)
            # What `other` added for the absent site, which would have subtracted it.
            total = total - mask if other < site else total + mask
    return total


def masked_sum(
    values: Mapping[int, np.ndarray],
    *,
    threshold: int,
    round_name: bytes,
    dropped: Collection[int] = (),
) -> np.ndarray:
    """Does a whole round in one process.

    Args:
      values: encoded updates by site, `[P]` uint64 each.
      threshold: number of sites that must be left.
      round_name: of this round alone.
      dropped: sites that go before they send.

    Returns:
      The sum over the sites that sent, `[P]` uint64.

    Raises:
      UserError: too few sites are left.
    """
    keys = {site: make_keys(site) for site in values}
    publics = {site: key.public for site, key in keys.items()}
    sealed = {
        site: share_secrets(key, publics, threshold, round_name) for site, key in keys.items()
    }
    masked = {
        site: mask_values(keys[site], publics, values[site], round_name)
        for site in values
        if site not in dropped
    }
    revealed = []
    for holder in masked:
        shares = {site: of_site[holder] for site, of_site in sealed.items()}
        revealed.append(reveal(keys[holder], publics, shares, masked.keys(), round_name))
    return unmask(masked, publics, revealed, threshold, round_name)


def _public(private: bytes) -> bytes:
    return _x25519().X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _agree(private: bytes, public: bytes, use: bytes, round_name: bytes) -> bytes:
    x25519 = _x25519()
    shared = x25519.X25519PrivateKey.from_private_bytes(private).exchange(
        x25519.X25519PublicKey.from_public_bytes(public)
    )
    return _derive(shared, use, round_name)


def _between(private: bytes, public: bytes, round_name: bytes, size: int) -> np.ndarray:
    """Makes the mask between two sites, the same at both."""
    return _stream(_agree(private, public, _MASK, round_name), size)


def _derive(secret: bytes, use: bytes, round_name: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"gxdistill secure aggregation 1|" + use + b"|" + round_name
    return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret)


def _stream(key: bytes, size: int) -> np.ndarray:
    """Draws `[size]` uint64 uniformly: ChaCha20's key stream, each key for one stream."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(8 * size)), "<u8").astype(np.uint64)


def _cipher(private: bytes, public: bytes, round_name: bytes):  # type: ignore[no-untyped-def]
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(_agree(private, public, _SEAL, round_name))


def _nonce(sender: int, holder: int) -> bytes:
    # Both directions of a pair share a key of this round alone: each has a nonce of its own.
    return sender.to_bytes(6) + holder.to_bytes(6)


def _x25519():  # type: ignore[no-untyped-def]
    try:
        from cryptography.hazmat.primitives.asymmetric import x25519
    except ImportError as error:
        raise UserError(
            "Secure aggregation needs the package cryptography. Install it with "
            "`pip install '.[sign]'`."
        ) from error
    return x25519
