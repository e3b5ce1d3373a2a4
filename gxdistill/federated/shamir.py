"""Secrets in shares: any `threshold` of them give the secret, fewer tell nothing of it.

Shamir 1979, https://doi.org/10.1145/359168.359176: a polynomial of degree threshold - 1 with random
coefficients, whose value at 0 is the secret; the share of site i is its value at i + 1.
"""

import secrets
from collections.abc import Mapping, Sequence

_PRIME = 2**521 - 1  # A Mersenne prime, above any secret of `SECRET_BYTES`.
SECRET_BYTES = 32
SHARE_BYTES = 66


def split(secret: bytes, holders: Sequence[int], threshold: int) -> dict[int, bytes]:
    """Splits a secret.

    Args:
      secret: 32 bytes.
      holders: numbers of the sites that are to hold a share, from 0.
      threshold: number of shares that give the secret.

    Returns:
      The share of each holder, 66 bytes.

    Raises:
      ValueError: the secret is of another length, or the threshold not from 1 to the holders.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"`secret` has {len(secret)} bytes; it must have {SECRET_BYTES}.")
    if not 1 <= threshold <= len(holders):
        raise ValueError(
            f"`threshold` is {threshold}; with {len(holders)} holders it must be from 1 to "
            f"{len(holders)}."
        )
    coefficients = [int.from_bytes(secret)]
    coefficients += [secrets.randbelow(_PRIME) for _ in range(threshold - 1)]
    shares = {}
    for holder in holders:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * (holder + 1) + coefficient) % _PRIME
        shares[holder] = value.to_bytes(SHARE_BYTES)
    return shares


def join(shares: Mapping[int, bytes]) -> bytes:
    """Makes the secret of its shares, by Lagrange's interpolation at 0.

    Args:
      shares: by the number of their holder, as many as the threshold.

    Raises:
      ValueError: they are no shares of one secret, or fewer than the threshold.
    """
    points = {holder + 1: int.from_bytes(share) for holder, share in shares.items()}
    secret = 0
    for x, value in points.items():
        above, below = 1, 1
        for other in points:
            if other != x:
                above = above * other % _PRIME
                below = below * (other - x) % _PRIME
        secret = (secret + value * above * pow(below, -1, _PRIME)) % _PRIME
    if secret >> 8 * SECRET_BYTES:
        raise ValueError(f"{len(shares)} shares give no secret: some are missing or damaged.")
    return secret.to_bytes(SECRET_BYTES)
