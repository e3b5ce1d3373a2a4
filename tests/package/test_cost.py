"""What a package would cost, against what is counted by hand and what is measured."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.models.cached import cached_network
from gxdistill.package import cost
from gxdistill.patching import patch_corners
from gxdistill.pytrees import Network
from tests.packages import B, E, K, S, make_manifest


def _linear(hidden):
    """A network of two products, whose cost everybody can count."""

    def init(key):
        return {"a": jax.random.normal(key, (64, hidden)), "b": jnp.zeros((hidden, K))}

    def apply(params, images):
        return images.reshape(len(images), -1) @ params["a"] @ params["b"]

    return Network(init, apply)


@pytest.mark.parametrize("count", [1, 7])
def test_operations_of_a_replay_are_those_of_the_textbook(count):
    small, large = (cost.of_training(make_manifest(), _linear(h), count) for h in (10, 1010))
    # Each product once forwards; backwards once for each factor but the images.
    forward = 2 * B * 64 * 1000 + 2 * B * 1000 * K
    step = 2 * forward + 2 * B * 1000 * K
    step += cost._OF_WEIGHT * 1000 * (64 + K)
    assert large.operations - small.operations == pytest.approx(count * S * E * step)
    weights = 4 * 1000 * (64 + K)
    assert large.memory - small.memory >= (3 + 2 * count) * weights


@pytest.mark.parametrize(("size", "stride", "border"), [(8, 4, True), (8, 4, False), (5, 3, True)])
@pytest.mark.parametrize("sides", [(64, 48), (9, 8), (8, 8), (31, 50)])
def test_patches_are_counted_as_they_are_listed(sides, size, stride, border):
    patch = dataclasses.replace(
        make_manifest().patch,
        image_height=sides[0],
        image_width=sides[1],
        size=size,
        stride=stride,
        border=border,
    )
    listed = patch_corners((*sides, 1), size, stride, border=border)
    assert cost.patches_of(patch) == len(listed)
    assert cost.patches_of(dataclasses.replace(patch, image_width=size - 1)) == 0


def test_deciding_counts_each_patch_and_each_network():
    about = make_manifest()
    once, thrice = (cost.of_deciding(about, _linear(10), count) for count in (1, 3))
    each = 2 * 64 * 10 + 2 * 10 * K + cost._OF_PATCH
    assert thrice.operations - once.operations == 2 * cost.patches_of(about.patch) * each
    more = dataclasses.replace(about.patch, image_height=65536, image_width=65536, stride=1)
    whole = cost.of_deciding(dataclasses.replace(about, patch=more), _linear(10), 1)
    assert whole.memory > 65536**2 * 32
    assert whole.operations > (65536 - 8) ** 2 * 2 * 64 * 10


def test_nothing_is_allocated_to_count_what_no_machine_has():
    network = cached_network("convnet", {"width": 4000, "depth": 1}, (256, 256, 1), 3)
    about = make_manifest()
    huge = dataclasses.replace(
        about,
        patch=dataclasses.replace(about.patch, size=256),
        distillation=dataclasses.replace(
            about.distillation, steps=2**31 - 1, epochs=2**31 - 1, images_per_step=2**31 - 1
        ),
    )
    taken = cost.of_training(huge, network, 2**31 - 1)
    assert taken.memory > 2**31 * 256 * 256 * 4000
    assert taken.operations > 2.0**93
    assert math.isfinite(taken.operations)


def test_ordinary_training_has_steps_of_its_own():
    about = make_manifest()
    short, long = (
        dataclasses.replace(about, distillation=dataclasses.replace(about.distillation, epochs=e))
        for e in (1, 1000)
    )
    costs = [cost.of_training(of, _linear(10), 1, ordinary=True).operations for of in (short, long)]
    assert costs[0] == costs[1]
    np.testing.assert_array_less(1000 * 1e6, costs)
