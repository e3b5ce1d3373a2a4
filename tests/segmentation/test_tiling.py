import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.segmentation import tiling

SIZE, OVERLAP = 6, 2


def _by_place(tiles):
    """Values that depend on where in its tile a pixel lies, as those of a network do."""
    ramp = jnp.arange(SIZE)[:, None] + 10.0 * jnp.arange(SIZE)
    return jnp.concatenate([tiles, tiles * ramp[..., None]], axis=-1)


def _in_numpy(image):
    """Adds up tiles one by one."""
    height, width, channels = image.shape
    begins = [
        sorted({*range(0, side - SIZE, SIZE - OVERLAP), side - SIZE}) for side in (height, width)
    ]
    total, weighed = np.zeros((height, width, 2 * channels)), np.zeros((height, width, 1))
    near = np.array([max(min(i + 0.5, SIZE - i - 0.5) / (SIZE / 2), 0.05) for i in range(SIZE)])
    weight = (near[:, None] * near)[..., None]
    for row in begins[0]:
        for col in begins[1]:
            part = slice(row, row + SIZE), slice(col, col + SIZE)
            total[part] += weight * np.asarray(_by_place(jnp.asarray(image[part])[None]))[0]
            weighed[part] += weight
    return total / weighed


@pytest.mark.parametrize("shape", [(6, 6, 1), (13, 10, 3), (6, 17, 1)])
def test_each_pixel_is_the_weighted_mean_of_its_tiles(shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    seen = jax.jit(lambda x: tiling.predict(_by_place, x, size=SIZE, overlap=OVERLAP))(image)
    np.testing.assert_allclose(seen, _in_numpy(image), rtol=1e-5, atol=1e-5)


def test_an_image_smaller_than_a_tile_is_continued_and_cut_back():
    image = np.random.default_rng(0).normal(size=(4, 9, 2)).astype(np.float32)
    seen = tiling.predict(_by_place, image, size=SIZE, overlap=OVERLAP)
    continued = np.pad(image, ((0, 2), (0, 0), (0, 0)), mode="edge")
    np.testing.assert_allclose(seen, _in_numpy(continued)[:4], rtol=1e-5, atol=1e-5)


def test_flips_are_undone_before_they_are_averaged():
    tiles = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 1)).astype(np.float32)
    np.testing.assert_allclose(tiling.averaged_over_flips(lambda x: x)(tiles), tiles, rtol=1e-6)
    ramp = np.arange(SIZE)[:, None] + 10.0 * np.arange(SIZE)
    mean = (ramp + ramp[::-1] + ramp[:, ::-1] + ramp[::-1, ::-1]) / 4
    seen = tiling.averaged_over_flips(_by_place)(tiles)
    np.testing.assert_allclose(seen[..., 1:], tiles * mean[..., None], rtol=1e-5)


@pytest.mark.parametrize("overlap", [-1, 6])
def test_an_overlap_that_leaves_nothing_is_refused(overlap):
    with pytest.raises(ValueError, match=f"`overlap` is {overlap}; tiles of 6 pixels"):
        tiling.corners((9, 9), SIZE, overlap)
