"""A batch is computed in parts, side by side: the result is that of each image by itself."""

import threading

import jax
import numpy as np
import pytest

from gxdistill.service.model import CompiledModel, Model, parts_of
from tests.service import tiny_server


def model(apply):
    kernel = tiny_server.kernel_of(0)
    return Model("0" * 64, apply, kernel, tiny_server.SHAPE, tiny_server.CLASSES)


@pytest.mark.parametrize(
    ("size", "cores", "parts"),
    [(1, 8, 1), (2, 8, 1), (3, 2, 1), (4, 2, 2), (6, 4, 3), (8, 3, 2), (32, 8, 8), (32, 1, 1)],
)
def test_a_batch_is_cut_evenly_into_parts_of_two_images_or_more(size, cores, parts):
    assert parts_of(size, cores) == parts


@pytest.mark.parametrize("count", [1, 2, 5, 7, 12])
def test_images_keep_their_order_and_values_whatever_the_parts(count):
    images = np.random.default_rng(count).random((count, *tiny_server.SHAPE), np.float32)
    compiled = CompiledModel(model(tiny_server.apply), (2, 6, 12), cores=3)

    probabilities, padding = compiled.run(images)

    alone = [tiny_server.apply(tiny_server.kernel_of(0), image[None])[0] for image in images]
    np.testing.assert_allclose(probabilities, alone, rtol=1e-5, atol=1e-6)
    assert padding == next(size for size in (2, 6, 12) if size >= count) - count


def test_parts_are_computed_at_the_same_time():
    """Each part waits until another one has come as far."""
    together = threading.Barrier(2)
    met = []

    def meet(images):
        if images.any():  # Not the first run, of zeros, which is not cut.
            met.append(together.wait(timeout=30))
        return images

    def apply(kernel, images):
        seen = jax.pure_callback(meet, jax.ShapeDtypeStruct(images.shape, images.dtype), images)
        return tiny_server.apply(kernel, seen)

    compiled = CompiledModel(model(apply), (4,), cores=2)
    compiled.run(np.ones((4, *tiny_server.SHAPE), np.float32))
    assert sorted(met) == [0, 1]
