import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill import models
from gxdistill.models import unet


def _network(shape=(8, 12, 1), classes=3, **options):
    return models.create("unet", shape=shape, classes=classes, **{"width": 2, "depth": 2} | options)


def _images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    network = _network(levels=2)
    params = network.init(jax.random.key(0))
    return network, params, jax.jit(network.apply_levels)


def test_each_pixel_has_logits_and_so_has_each_coarser_one(small):
    network, params, levels = small
    images = _images(2, 9, 14, 1)  # No multiples of four.
    fine, coarse = levels(params, images)
    assert (fine.shape, coarse.shape) == ((2, 9, 14, 3), (2, 5, 7, 3))
    assert fine.dtype == coarse.dtype == jnp.float32
    np.testing.assert_array_equal(jax.jit(network.apply)(params, images), fine)


def test_an_image_is_continued_by_its_last_pixels(small):
    _, params, levels = small
    images = _images(1, 9, 14, 1)
    continued = np.pad(images, ((0, 0), (0, 3), (0, 2), (0, 0)), mode="edge")
    whole, _ = levels(params, continued)
    np.testing.assert_allclose(levels(params, images)[0], whole[:, :9, :14], rtol=1e-5, atol=1e-6)


def test_each_image_is_judged_by_itself(small):
    _, params, levels = small
    images = _images(2, 8, 12, 1)
    fine, _ = levels(params, images)
    alone, _ = levels(params, images[1:])
    np.testing.assert_allclose(fine[1:], alone, rtol=1e-5, atol=1e-6)
    assert np.abs(fine[0] - fine[1]).max() > 1e-3


def test_every_weight_learns_from_the_supervised_levels(small):
    _, params, levels = small
    images = _images(2, 8, 12, 1)

    @jax.jit
    def loss(params):
        return sum(jnp.sum(jnp.sin(x)) for x in levels(params, images))

    gradient = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def _count(channels, classes, width, depth):
    """Adds up Ronneberger et al.'s figure 1, with norms in place of biases."""

    def block(before, after):
        return 9 * (before * after + after * after) + 2 * 2 * after

    features = [width * 2**level for level in range(depth + 1)]
    down = sum(map(block, [channels, *features[:-1]], features))
    raised = sum(4 * 2 * n * n + 4 * n for n in features[:-1])
    joined = sum(block(2 * n, n) for n in features[:-1])
    return down + raised + joined + width * classes + classes


@pytest.mark.parametrize(
    ("channels", "classes", "width", "depth"), [(1, 2, 8, 2), (3, 2, 16, 3), (4, 5, 64, 4)]
)
def test_parameter_counts(channels, classes, width, depth):
    network = _network((64, 64, channels), classes, width=width, depth=depth)
    drawn = jax.eval_shape(network.init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(drawn))
    assert count == _count(channels, classes, width, depth)


def test_four_channels_become_two_by_two_pixels():
    x = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8)
    y = np.asarray(unet.depth_to_space(jnp.asarray(x)))
    assert y.shape == (1, 4, 6, 2)
    for i, j, c in np.ndindex(4, 6, 2):
        assert y[0, i, j, c] == x[0, i // 2, j // 2, 4 * (i % 2) + 2 * (j % 2) + c]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 3}, "`levels` is 3; a U-Net of depth 2 gives logits at 1 to 2 resolutions"),
        ({"depth": 4}, "8x12 pixels are too small for unet, which needs 16"),
        ({"stages": 1}, "`option of unet` is 'stages'"),
        ({"width": 9000}, "this unet would take .* GiB, over 1 GiB"),
    ],
)
def test_a_bad_choice_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _network(**options)


def test_a_classifier_has_no_levels():
    assert models.create("lenet", shape=(12, 12, 1), classes=2).apply_levels is None
    assert not set(models.SEGMENTERS) & set(models.NAMES)
