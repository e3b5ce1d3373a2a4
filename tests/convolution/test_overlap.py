import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill import models
from gxdistill.convolution import overlap
from gxdistill.convolution.conv import conv_pool_relu
from gxdistill.patching import patch_corners


def _layers(rng, channels):
    shapes = (5, 5, channels, 3), (5, 5, 3, 4)
    return tuple(
        (jnp.asarray(rng.normal(size=s), jnp.float32), jnp.asarray(rng.normal(size=s[3])))
        for s in shapes
    )


# Patches whose last rows see their padding and some whose do not; even, odd; all phases.
@pytest.mark.parametrize(
    ("size", "stride", "shape"), [(16, 4, (40, 36)), (19, 2, (31, 30)), (28, 6, (61, 47))]
)
def test_every_patch_gets_what_it_gets_alone(size, stride, shape):
    rng = np.random.default_rng(0)
    layers = _layers(rng, 2)
    image = jnp.asarray(rng.normal(size=(*shape, 2)), jnp.float32)
    corners = patch_corners(shape, size, stride)

    @jax.jit
    def shared(image):
        maps = overlap.image_maps(image, layers)
        return overlap.patch_maps(image, maps, jnp.asarray(corners), layers, size=size)

    alone = jnp.stack([image[r : r + size, c : c + size] for r, c in corners])
    expected = jax.jit(lambda x: conv_pool_relu(x, layers))(alone)
    np.testing.assert_allclose(shared(image), expected, rtol=1e-4, atol=1e-3)


def test_only_networks_of_large_enough_patches_without_norms_share():
    def over(name, size):
        return models.create(name, shape=(size, size, 1), classes=3).apply_windows

    assert over("lenet", 16) is not None
    assert over("lenet", 15) is None
    assert over("convnet", 16) is None
