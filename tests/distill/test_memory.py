import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill import models
from gxdistill.distill import memory
from gxdistill.distill.inner import OPTIMIZERS
from gxdistill.distill.losses import inner_loss
from gxdistill.distill.memory import STRATEGIES, Memory
from gxdistill.distill.unroll import Training, choose_memory, unroll
from gxdistill.pytrees import Distilled
from tests import toy


def _loss(w, images, labels):
    return jnp.mean((jnp.tanh(images.reshape(len(images), -1) @ w) - labels) ** 2)


def _params():
    return jnp.asarray(np.random.default_rng(1).normal(size=(16, toy.CLASSES)))


def _data(steps, rates):
    rng = np.random.default_rng(0)
    return Distilled(
        jnp.asarray(rng.normal(size=(steps, 2, *toy.SHAPE))),
        jnp.asarray(rng.normal(size=(steps, 2, toy.CLASSES))),
        jnp.asarray(rng.uniform(-2, 0, size=rates)),
    )


def _steps_by_hand(inner, params, data, first, count):
    """Every step written out: JAX stores all, and knows nothing of loops."""
    step, carry = inner.step(_loss), (params, inner.init(params))
    for t in range(first, first + count):
        s = t % len(data.images)
        carry = step(carry, Distilled(data.images[s], data.labels[s], data.log_lr[t]))
    return carry


def _summed(carry):
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(carry))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("optimizer", "first", "count"), [("sgd", 2, 3), ("adam", 0, 3), ("momentum", 1, 1)]
)
def test_every_strategy_gives_the_gradient_of_the_steps_written_out(optimizer, first, count):
    inner, data, params = OPTIMIZERS[optimizer](), _data(2, 6), _params()

    def by_hand(params, data):
        return _summed(_steps_by_hand(inner, params, data, first, count))

    expected = jax.jit(jax.value_and_grad(by_hand, argnums=(0, 1)))(params, data)
    for strategy in STRATEGIES:

        def ours(params, data, first, strategy=strategy):  # `first` is traced
            carry = params, inner.init(params)
            how = {"count": count, "memory": Memory(strategy)}
            step = inner.step(_loss)
            return _summed(memory.differentiable(step, carry, data, first, **how))

        actual = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(params, data, first)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), actual, expected
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("first", "count"), [(2, 101), (0, 125), (1, 128)])
def test_three_levels_give_the_gradient_of_storing_all(first, count):
    """Whole segments, short last ones on either level, and a last one of a single step."""
    inner, data, params = OPTIMIZERS["momentum"](), _data(2, 132), _params()

    def gradient(strategy):
        def after(params, data, first):
            carry, how = (params, inner.init(params)), Memory(strategy)
            step = inner.step(_loss)
            taken = memory.differentiable(step, carry, data, first, count=count, memory=how)
            return _summed(taken)

        return jax.jit(jax.value_and_grad(after, argnums=(0, 1)))(params, data, first)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        gradient("nested"),
        gradient("store"),
    )


@pytest.mark.parametrize(
    ("count", "sizes", "kept"),
    [(1, (1,), 2), (30, (6,), 11), (100, (10,), 20), (101, (25, 5), 15), (300, (49, 7), 21)],
)
def test_segments_cover_all_steps_and_keep_roots_of_their_number(count, sizes, kept):
    assert memory.segments(count) == sizes
    levels = [math.ceil(a / b) for a, b in zip((count, *sizes), (*sizes, 1), strict=True)]
    assert math.prod(levels) >= count
    assert sum(levels) == kept


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_finite_differences_tell_the_same_gradient(strategy):
    data, params = _data(2, 4), _params()
    training = Training(memory=Memory(strategy))
    value = jax.jit(lambda data: _summed(unroll(_loss, params, data, training)))
    grads = jax.jit(jax.grad(value))(data)
    for field in dataclasses.fields(data):
        centre, h = getattr(data, field.name), 1e-5
        direction = np.random.default_rng(2).normal(size=centre.shape)
        ahead, behind = (
            value(dataclasses.replace(data, **{field.name: centre + sign * h * direction}))
            for sign in (1, -1)
        )
        slope = np.vdot(getattr(grads, field.name), direction)
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-6)


def test_auto_takes_the_fastest_that_fits_the_budget():
    sizes = {"store": 300, "recompute": 200, "nested": 100}
    taken = {300: "store", 299: "recompute", 199: "nested", 99: "nested"}
    for budget, name in taken.items():
        assert memory.chosen(Memory("auto", budget), sizes) == name
    assert memory.chosen(Memory("store", 0), sizes) == "store"  # asked for by name
    with pytest.raises(ValueError, match="`memory` is 'all'; it must be one of 'auto', 'store'"):
        unroll(_loss, {}, _data(1, 1), Training(memory=Memory("all")))


def _sizes(name, options, size, images, rates):
    """Bytes of temporaries as compiled, and as estimated, by strategy."""
    network = models.create(name, shape=(size, size, 1), classes=10, **options)
    loss = inner_loss(network, "raw")
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    data = Distilled(shape((1, images, size, size, 1)), shape((1, images, 10)), shape((rates,)))
    params = jax.eval_shape(network.init, jax.random.key(0))
    _, estimated = choose_memory(loss, params, data, Training(), rates)
    compiled = {}
    for strategy in STRATEGIES:
        training = Training(memory=Memory(strategy))
        after = lambda p, d, how=training: _summed(unroll(loss, p, d, how))
        program = jax.jit(jax.grad(after, argnums=1)).lower(params, data).compile()
        compiled[strategy] = program.memory_analysis().temp_size_in_bytes
    return compiled, estimated


SIZES = {
    "lenet": ("lenet", {}, 28, 10, 30),
    "lenet-long": ("lenet", {}, 28, 10, 300),
    "convnet": ("convnet", {"width": 128}, 28, 10, 10),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SIZES.values(), ids=SIZES)
def test_estimates_are_what_the_compiler_allots_within_a_fifth(case):
    with toy.quick_compilation(False):
        compiled, estimated = _sizes(*case)
    for strategy in STRATEGIES:
        assert estimated[strategy] == pytest.approx(compiled[strategy], rel=0.2), strategy
    assert compiled["nested"] < compiled["recompute"] < compiled["store"]
