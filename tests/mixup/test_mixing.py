"""Mixing, un-mixing and their loss, against NumPy and by statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.mixup import losses, mixing, unmixing
from gxdistill.mixup.losses import Networks, Pair, Weights
from gxdistill.mixup.mixing import Law
from gxdistill.mixup.unmixing import Reference
from gxdistill.segmentation.losses import segmentation_loss

RNG = np.random.default_rng(0)
SHARES = np.array([0.3, 0.8], np.float32)


def _pair(count=2, classes=3):
    images = RNG.random((2, count, 6, 5, 1)).astype(np.float32)
    labels = RNG.integers(0, classes, (2, count, 6, 5)).astype(np.int32)
    return Pair(images[0], labels[0], Reference(images[1], labels[1], jnp.array(SHARES[:count])))


def test_a_mixture_is_the_weighted_mean_of_each_pair():
    x, r = RNG.random((2, 2, 6, 5, 1)).astype(np.float32)
    mixture = mixing.mix(jnp.array(x), jnp.array(r), jnp.array(SHARES))
    for n, share in enumerate(SHARES):
        np.testing.assert_allclose(mixture[n], share * x[n] + (1 - share) * r[n], rtol=1e-6)
    with pytest.raises(ValueError, match="cannot be mixed"):
        mixing.mix(jnp.ones((1, 4, 4)), jnp.ones((1, 4, 5)), jnp.ones(1))


def test_shares_follow_their_law():
    drawn = np.asarray(mixing.draw_shares(jax.random.key(0), 20_000, Law(0.2, 0.6)))
    assert 0.2 <= drawn.min() < 0.201 < 0.599 < drawn.max() <= 0.6
    # Kolmogorov-Smirnov: at this number the distance exceeds .0115 in one of a hundred trials.
    expected = (np.sort(drawn) - 0.2) / 0.4
    assert np.abs(expected - np.arange(len(drawn)) / len(drawn)).max() < 0.0115
    for law in (Law(0.0, 0.5), Law(0.5, 1.0), Law(0.6, 0.5)):
        with pytest.raises(ValueError, match="law of lambda"):
            mixing.draw_shares(jax.random.key(0), 1, law)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_the_exposure_is_the_ratio_that_simulated_mixtures_show(count):
    rng, shares = np.random.default_rng(1), np.full(count, 0.4)
    x = rng.normal(size=4000)
    mean = np.mean([s * x + (1 - s) * rng.normal(size=4000) for s in shares], axis=0)
    weight = mean @ x / (x @ x)  # Least squares: of the image in the mean.
    deviation = np.std(mean - weight * x)
    assert mixing.exposure(shares.tolist()) == pytest.approx(weight / deviation, rel=0.06)
    assert mixing.exposure(shares.tolist()) == pytest.approx(np.sqrt(count) * 0.4 / 0.6)


def test_unmixing_is_exact_where_the_answer_is_the_mixture_of_both_segmentations():
    pair = _pair()
    one_hot = np.eye(3, dtype=np.float32)
    share = SHARES[:, None, None, None]
    answer = share * one_hot[pair.labels] + (1 - share) * one_hot[pair.reference.labels]
    seen = []

    def network(params, inputs):
        seen.append(inputs)
        return params * jnp.zeros((*inputs.shape[:3], 3))

    logits = unmixing.unmix(network, jnp.float32(1), jnp.array(answer), pair.reference)
    np.testing.assert_array_equal(np.argmax(logits, -1), pair.labels)
    assert seen[0].shape[-1] == unmixing.input_channels(1, 3)
    np.testing.assert_array_equal(seen[0][..., -1][1], SHARES[1])


def test_the_loss_is_the_sum_of_its_parts_in_numpy():
    pair = _pair()
    kernel = RNG.normal(size=(1, 3)).astype(np.float32)
    other = RNG.normal(size=(8, 3)).astype(np.float32)
    networks = Networks(lambda w, x: x @ w, lambda w, x: x @ w)
    weights = Weights(2.0, 3.0, 0.5)
    params = {"segmenter": jnp.array(kernel), "unmixer": jnp.array(other)}
    loss = losses.mixup_loss(networks, params, pair, segmentation_loss, weights)

    share, one_hot = SHARES[:, None, None, None], np.eye(3)
    images, known = np.float64(pair.images), np.float64(pair.reference.images)
    logits = (share * images + (1 - share) * known) @ kernel
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    targets = (one_hot[labels] for labels in (pair.labels, pair.reference.labels))
    y, r = targets
    of_mixture = -((share * y + (1 - share) * r) * np.log(p)).sum(-1).mean()

    def recovered(known_labels, known_images, lam):
        plane = np.broadcast_to(lam, p[..., :1].shape)
        seen = np.concatenate([p, known_labels, known_images, plane], -1)
        exact = np.clip((p - (1 - lam) * known_labels) / lam, 1e-3, 1)
        return jnp.array(np.log(exact) + seen @ other)

    of_target = segmentation_loss(recovered(r, known, share), pair.labels)
    of_reference = segmentation_loss(recovered(y, images, 1 - share), pair.reference.labels)
    expected = 2 * of_mixture + 3 * of_target + 0.5 * of_reference
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_both_networks_learn_from_the_loss():
    networks = Networks(lambda w, x: x @ w, lambda w, x: x @ w)
    params = {"segmenter": jnp.ones((1, 3)), "unmixer": jnp.zeros((8, 3))}
    pair = _pair()
    grads = jax.grad(lambda p: losses.mixup_loss(networks, p, pair, segmentation_loss, Weights()))(
        params
    )
    for name in params:
        assert np.abs(grads[name]).max() > 1e-4
