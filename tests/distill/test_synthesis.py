import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.distill import synthesis

IMAGES = jax.random.normal(jax.random.key(0), (2, 3, 8, 8, 1))
KEY = jax.random.key(1)


def test_pixels_are_the_images():
    pixels = synthesis.pixels()
    np.testing.assert_array_equal(pixels.synthesise(pixels.init(IMAGES, KEY)), IMAGES)


def test_tiles_are_enlarged_bilinearly():
    enlarged = synthesis.tiles((8, 8), 2)
    tiles = enlarged.init(IMAGES, KEY)
    assert tiles.shape == (2, 3, 4, 4, 1)
    ramp = jnp.broadcast_to(jnp.arange(4.0)[:, None, None], tiles.shape)
    expected = np.interp((np.arange(8) + 0.5) / 2 - 0.5, np.arange(4), np.arange(4))
    np.testing.assert_allclose(enlarged.synthesise(ramp)[0, 0, :, 5, 0], expected, atol=1e-6)


def test_tiles_of_sides_that_are_no_multiple_fill_the_image():
    enlarged = synthesis.tiles((7, 5), 3)
    images = enlarged.synthesise(enlarged.init(jnp.ones((1, 1, 7, 5, 2)), KEY))
    np.testing.assert_allclose(images, np.ones((1, 1, 7, 5, 2)), rtol=1e-6)


def test_images_are_mixtures_of_shared_bases():
    bases = synthesis.bases(2)
    parameters = bases.init(IMAGES, KEY)
    assert {k: v.shape for k, v in parameters.items()} == {
        "bases": (2, 8, 8, 1),
        "coefficients": (2, 3, 2),
    }
    images = np.asarray(bases.synthesise(parameters))
    for s in range(2):
        for b in range(3):
            weights, parts = parameters["coefficients"][s, b], np.asarray(parameters["bases"])
            np.testing.assert_allclose(
                images[s, b], weights[0] * parts[0] + weights[1] * parts[1], rtol=1e-5, atol=1e-6
            )
    # They start as the bases in turn, no two alike.
    flat, parts = images.reshape(6, -1), np.asarray(parameters["bases"]).reshape(2, -1)
    nearest = np.square(flat[:, None] - parts).sum(-1).argmin(1)
    np.testing.assert_array_equal(nearest, np.arange(6) % 2)
    assert len(np.unique(flat, axis=0)) == 6


@pytest.mark.parametrize("made", [synthesis.tiles((8, 8), 4), synthesis.bases(5)])
def test_every_parameter_gets_a_gradient(made):
    parameters = made.init(IMAGES, KEY)
    grads = jax.grad(lambda p: jnp.sum(jnp.sin(made.synthesise(p)) * IMAGES))(parameters)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
        assert (np.abs(leaf) > 0).mean() > 0.9


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="Images of 8x4 pixels cannot be made of tiles 5 times"):
        synthesis.tiles((8, 4), 5)
    with pytest.raises(ValueError, match="6 images are fewer than the 7 bases"):
        synthesis.bases(7).init(IMAGES, KEY)
    with pytest.raises(ValueError, match="`count` is 0"):
        synthesis.bases(0)


def test_levels_are_those_of_each_image_and_the_gradient_passes_them():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 4, 1)), jnp.float32)
    levels = synthesis.levels(16)
    learned = levels.init(images, jax.random.key(0))
    rounded = np.asarray(levels.synthesise(learned)).reshape(6, -1)
    for row, image in zip(rounded, np.asarray(images).reshape(6, -1), strict=True):
        grid = np.linspace(image.min(), image.max(), 16)
        nearest = grid[np.abs(image[:, None] - grid).argmin(1)]
        np.testing.assert_allclose(row, nearest, atol=1e-5)
    low, high = (learned[name][..., None, None, None] for name in ("low", "high"))
    inside = jnp.where((images > low) & (images < high), images, 0)
    grads = jax.grad(lambda p: jnp.sum(inside * levels.synthesise(p)))(learned)
    np.testing.assert_allclose(grads["values"], inside, rtol=1e-5)
    # Moving both ends moves each level with them, and no pixel: what the rounding adds stays.
    np.testing.assert_allclose(grads["low"] + grads["high"], jnp.zeros((2, 3)), atol=1e-4)


def test_pixels_beyond_the_levels_are_clipped_and_move_with_the_end():
    levels = synthesis.levels(4)
    learned = {
        "values": jnp.array([-1.0, 0.5, 3.0]).reshape(1, 1, 3, 1, 1),
        "low": jnp.zeros((1, 1)),
        "high": jnp.ones((1, 1)),
    }
    np.testing.assert_allclose(levels.synthesise(learned).ravel(), [0, 2 / 3, 1], rtol=1e-6)
    grads = jax.grad(lambda p: jnp.sum(levels.synthesise(p).ravel()[::2]))(learned)
    assert (float(grads["low"][0, 0]), float(grads["high"][0, 0])) == (1.0, 1.0)
    assert not np.asarray(grads["values"]).any()
