import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.segmentation import losses

N, H, W, K = 2, 5, 4, 3


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, H, W, K)).astype(np.float32), rng.integers(0, K, (N, H, W))


def _probabilities(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def _soft_dice(logits, labels, groups):
    """Pixel by pixel, over each group of images."""
    shares = []
    for group in groups:
        for k in range(1, K):
            both = of_p = of_t = 0.0
            for n in group:
                for i in range(H):
                    for j in range(W):
                        p = _probabilities(logits[n, i, j])[k]
                        t = float(labels[n, i, j] == k)
                        both, of_p, of_t = both + p * t, of_p + p, of_t + t
            shares.append((2 * both + 1) / (of_p + of_t + 1))
    return np.mean(shares)


def _cross_entropy(logits, labels):
    picked = np.take_along_axis(_probabilities(logits), labels[..., None], -1)
    return -np.log(picked).mean()


@pytest.mark.parametrize(("over", "groups"), [("image", [[0], [1]]), ("batch", [[0, 1]])])
def test_the_loss_is_that_of_a_loop_over_pixels(drawn, over, groups):
    logits, labels = drawn
    dice = _soft_dice(logits, labels, groups)
    half = 0.5 * (1 - dice) + 0.5 * _cross_entropy(logits, labels)
    np.testing.assert_allclose(losses.soft_dice(*drawn, over=over), dice, rtol=1e-5)
    np.testing.assert_allclose(losses.segmentation_loss(*drawn, over=over), half, rtol=1e-5)


def test_of_images_the_loss_of_a_batch_is_the_mean(drawn):
    logits, labels = drawn
    alone = [losses.segmentation_loss(logits[i : i + 1], labels[i : i + 1]) for i in range(N)]
    np.testing.assert_allclose(losses.segmentation_loss(*drawn), np.mean(alone), rtol=1e-6)


def test_levels_weigh_half_of_the_finer_one(drawn):
    logits, labels = drawn
    coarse = np.random.default_rng(1).normal(size=(N, 3, 2, K)).astype(np.float32)
    coarser_labels = np.zeros((N, 3, 2), int)
    for n, i, j in np.ndindex(N, 3, 2):
        coarser_labels[n, i, j] = labels[n, 2 * i, 2 * j]
    fine = losses.segmentation_loss(logits, labels)
    below = losses.segmentation_loss(coarse, coarser_labels)
    mean = (fine + below / 2) / 1.5
    np.testing.assert_allclose(losses.deep_loss([logits, coarse], labels), mean, rtol=1e-6)
    np.testing.assert_allclose(losses.deep_loss([logits], labels), fine, rtol=1e-6)


def test_a_class_that_is_nowhere_costs_nothing_and_has_a_gradient():
    labels = np.zeros((1, H, W), int)
    sure = jnp.zeros((1, H, W, K)).at[..., 0].set(30.0)
    assert losses.segmentation_loss(sure, labels) < 1e-6
    gradient = jax.grad(losses.segmentation_loss)(jnp.zeros((1, H, W, K)), labels)
    assert np.isfinite(gradient).all()
    assert (gradient[..., 0] < 0).all()


def test_another_sum_is_refused(drawn):
    with pytest.raises(ValueError, match="`over` is 'pixel'; it must be one of 'image', 'batch'"):
        losses.soft_dice(*drawn, over="pixel")
