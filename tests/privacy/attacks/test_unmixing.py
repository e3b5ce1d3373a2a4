"""Attacks on mixtures, against loops and where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage

from gxdistill.mixup.mixing import Law
from gxdistill.privacy.attacks import unmixing
from gxdistill.pytrees import Batch
from gxdistill.training import steps


def _bodies(count, seed):
    """Smooth volumes that share a form, as anatomy does."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, 8, 16, 16))
    smooth = np.stack([ndimage.gaussian_filter(volume, 1.5) for volume in noise])
    form = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(8, 16, 16)), 1.5)
    return np.clip(0.5 + smooth + form, 0, 1).astype(np.float32)


def test_retrieval_counts_as_a_loop_does():
    rng = np.random.default_rng(1)
    gallery = rng.random((12, 3, 4, 4))
    queries = 0.3 * gallery + 0.7 * rng.random(gallery.shape)
    result = unmixing.retrieval(queries, gallery)
    shared = [volumes.reshape(12, -1).mean(0) for volumes in (queries, gallery)]
    firsts, precisions = 0, []
    for row in range(12):
        query = queries[row].ravel() - shared[0]
        likeness = []
        for other in range(12):
            known = gallery[other].ravel() - shared[1]
            likeness.append(query @ known / np.linalg.norm(query) / np.linalg.norm(known))
        rank = 1 + sum(value > likeness[row] for value in likeness)
        firsts += rank == 1
        precisions.append(1 / rank)
    assert result.precision_at_1.value == pytest.approx(firsts / 12)
    assert result.mean_average_precision == pytest.approx(np.mean(precisions))
    assert result.over_chance == pytest.approx(firsts)
    with pytest.raises(ValueError, match="cannot be looked up"):
        unmixing.retrieval(queries[:5], gallery)


def test_raw_volumes_are_all_found_and_noise_or_nothing_by_chance():
    gallery = _bodies(40, 2)
    assert unmixing.retrieval(gallery, gallery).precision_at_1.value == 1
    for queries in (np.random.default_rng(3).random(gallery.shape), np.ones_like(gallery)):
        share = unmixing.retrieval(queries, gallery).precision_at_1
        assert share.low <= 1 / 40 <= share.high


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_a_known_pool_gives_every_patient_away_and_an_unknown_one_does_not(share):
    gallery, pool, other = _bodies(40, 2), _bodies(10, 4), _bodies(10, 5)
    rows = np.random.default_rng(6).integers(0, 10, 40)
    mixtures = share * gallery + (1 - share) * pool[rows]
    known = unmixing.subtract_known(mixtures, pool)
    np.testing.assert_array_equal(known.references, rows)
    assert unmixing.retrieval(known.images, gallery).precision_at_1.value >= 0.9
    guessed = unmixing.subtract_known(mixtures, other)
    if share < 0.1:  # Above, likeness alone finds patients.
        assert unmixing.retrieval(guessed.images, gallery).precision_at_1.value < 0.3


def test_the_mean_of_many_mixtures_gives_patients_away_that_one_hides():
    gallery, share = _bodies(40, 2), 0.08
    mixed = []
    for query in range(40):
        pool = _bodies(40, 100 + query)
        mixed.append(share * gallery + (1 - share) * pool)
    shares = [
        unmixing.retrieval(unmixing.average_queries(mixed[:count]), gallery).precision_at_1.value
        for count in (1, 40)
    ]
    assert shares[0] < 0.3
    assert shares[1] > shares[0] + 0.3


def test_the_separating_gradient_ends_at_the_least_squares_of_the_mixture():
    """With `x` and `r` independent, the best weight of the mixture is cov(m, x) / var(m)."""
    rng = np.random.default_rng(0)
    images = jnp.array(rng.normal(size=(4000, 4, 4, 1)), jnp.float32)
    batch = Batch(images, jnp.zeros(4000, jnp.int32), jnp.zeros(4000, jnp.int32))
    gradient = unmixing.separation_gradient(lambda w, m: w * m, Law(0.4, 0.4))
    loop = steps.loop(gradient, optax.sgd(0.5))
    state = loop.init(jnp.float32(0), jax.random.key(0))
    for _ in range(60):
        state, _ = loop.update(state, batch)
    np.testing.assert_allclose(state.learned, 0.4 / (0.4**2 + 0.6**2), rtol=0.02)


def test_the_mean_likeness_is_1_of_the_volumes_and_0_of_noise():
    gallery = _bodies(40, 2)
    assert unmixing.mean_likeness(0.1 * gallery + 3, gallery) == pytest.approx(1)
    noise = np.random.default_rng(3).random(gallery.shape)
    assert abs(unmixing.mean_likeness(noise, gallery)) < 0.02
