"""Secrets in shares: any that suffice give the secret, and fewer nothing."""

import itertools
import secrets

import pytest

from gxdistill.federated import shamir


def test_any_three_of_five_shares_give_the_secret():
    secret = secrets.token_bytes(32)
    shares = shamir.split(secret, range(5), 3)
    for chosen in itertools.combinations(range(5), 3):
        assert shamir.join({holder: shares[holder] for holder in chosen}) == secret
    assert shamir.join(shares) == secret


def test_two_shares_fit_every_secret():
    """Of threshold 3, each secret has a polynomial through two given shares and itself."""
    prime = 2**521 - 1
    shares = shamir.split(bytes(32), range(3), 3)
    y1, y2 = (int.from_bytes(shares[i]) for i in (0, 1))
    for secret in (0, 1, 2**255 + 12345):
        # f(x) = secret + b x + c x^2 with f(1) = y1, f(2) = y2.
        c = (y2 - 2 * y1 + secret) * pow(2, -1, prime) % prime
        b = (y1 - secret - c) % prime
        third = (secret + 3 * b + 9 * c) % prime
        completed = {0: shares[0], 1: shares[1], 2: third.to_bytes(66)}
        assert shamir.join(completed) == secret.to_bytes(32)


def test_shares_of_several_secrets_are_refused():
    first, second = (shamir.split(secrets.token_bytes(32), range(3), 2) for _ in range(2))
    with pytest.raises(ValueError, match="2 shares give no secret"):
        shamir.join({0: first[0], 1: second[1]})


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`secret` has 3 bytes"):
        shamir.split(b"abc", range(3), 2)
    with pytest.raises(ValueError, match="`threshold` is 4"):
        shamir.split(bytes(32), range(3), 4)
