"""Masked sums: exact, whoever drops out, and nothing but noise one by one."""

import numpy as np
import pytest
from scipy import stats

from gxdistill.errors import UserError
from gxdistill.federated import secure_aggregation
from gxdistill.federated.fixed_point import FixedPoint

SITES, SIZE, NAME = 5, 4096, b"round 1"
FORM = FixedPoint(SITES, 100.0)


def _values():
    rng = np.random.default_rng(0)
    return {site: FORM.encode(rng.normal(size=SIZE)) for site in range(SITES)}


def _masked(values, threshold=3):
    keys = {site: secure_aggregation.make_keys(site) for site in values}
    publics = {site: key.public for site, key in keys.items()}
    sealed = {
        site: secure_aggregation.share_secrets(key, publics, threshold, NAME)
        for site, key in keys.items()
    }
    masked = {
        site: secure_aggregation.mask_values(keys[site], publics, values[site], NAME)
        for site in values
    }
    return keys, publics, sealed, masked


@pytest.mark.parametrize("dropped", [(), (0,), (1, 4)])
def test_the_sum_is_exact_whoever_drops_out(dropped):
    values = _values()
    total = secure_aggregation.masked_sum(values, threshold=3, round_name=NAME, dropped=dropped)
    left = [values[site].view(np.int64) for site in values if site not in dropped]
    np.testing.assert_array_equal(total.view(np.int64), np.sum(left, axis=0))


def test_a_round_with_too_few_sites_is_refused():
    with pytest.raises(UserError, match="2 of 5 sites sent, where 3 must: the round is refused"):
        secure_aggregation.masked_sum(_values(), threshold=3, round_name=NAME, dropped=(0, 2, 3))


def test_two_sites_reveal_too_little_to_unmask():
    """The server asks only after the threshold, and two shares of three give no seed."""
    values = _values()
    keys, publics, sealed, masked = _masked(values)
    two = [
        secure_aggregation.reveal(
            keys[i], publics, {s: sealed[s][i] for s in sealed}, masked.keys(), NAME
        )
        for i in (0, 1)
    ]
    with pytest.raises(UserError, match="2 of 5 sites are left"):
        secure_aggregation.unmask(masked, publics, two, 3, NAME)
    with pytest.raises(ValueError, match="2 shares give no secret"):
        secure_aggregation.unmask(masked, publics, two, 2, NAME)


def test_a_masked_update_is_indistinguishable_from_uniform_noise():
    """All bytes by chi-square, the numbers by Kolmogorov-Smirnov, beside an update of zeros."""
    for values in (_values(), {site: np.zeros(SIZE, np.uint64) for site in range(SITES)}):
        *_, masked = _masked(values)
        for site, update in masked.items():
            counts = np.bincount(update.view(np.uint8), minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-4
            assert stats.kstest(update / 2.0**64, "uniform").pvalue > 1e-4
            signed = update.view(np.int64).astype(float)
            plain = values[site].view(np.int64).astype(float)
            if plain.any():
                assert stats.pearsonr(signed, plain).pvalue > 1e-4
        pairs = np.array([update / 2.0**64 for update in masked.values()])
        across = np.corrcoef(pairs)[np.triu_indices(SITES, 1)]
        assert (np.abs(across) < 5 / np.sqrt(SIZE)).all()


def test_even_all_but_two_masked_updates_hide_the_two():
    """What the server adds up by itself stays uniform until the seeds are revealed."""
    *_, masked = _masked(_values())
    total = np.sum(list(masked.values()), axis=0, dtype=np.uint64)
    assert stats.kstest(total / 2.0**64, "uniform").pvalue > 1e-4


def test_a_site_never_tells_both_secrets_of_another():
    keys, publics, sealed, _ = _masked(_values())
    told = secure_aggregation.reveal(
        keys[0], publics, {s: sealed[s][0] for s in sealed}, {0, 1, 2}, NAME
    )
    assert set(told.seeds) == {0, 1, 2}
    assert set(told.keys) == {3, 4}


def test_a_share_that_was_changed_or_is_of_another_round_is_refused():
    keys, publics, sealed, _ = _masked(_values())
    shares = {s: sealed[s][0] for s in sealed}
    damaged = {**shares, 2: shares[2][:-1] + bytes([shares[2][-1] ^ 1])}
    for given, name in ((damaged, NAME), (shares, b"round 2")):
        with pytest.raises(UserError, match="was damaged on its way"):
            secure_aggregation.reveal(keys[0], publics, given, {0, 1}, name)


@pytest.mark.parametrize("threshold", [2, 6])
def test_a_threshold_of_half_the_sites_or_of_more_than_all_is_refused(threshold):
    with pytest.raises(ValueError, match=f"`threshold` is {threshold}"):
        secure_aggregation.masked_sum(_values(), threshold=threshold, round_name=NAME)
