import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gxdistill.distill import init, outer
from gxdistill.distill.meta_gradient import after_training
from gxdistill.distill.replay import replay
from gxdistill.pytrees import Batch, Distilled
from gxdistill.training.steps import several_steps
from tests import toy

RATES = {"images_lr": 0.1, "labels_lr": 0.03, "rates_lr": 0.01}
STEPS = 6
KEY = jax.random.key(3)


def _distilled(rng):
    shapes = (2, 3, 4, 4, 1), (2, 3, 2), (4,)
    return Distilled(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def _batch(mean):
    images = np.full((5, 4, 4, 1), mean, np.float32)
    return Batch(images, np.zeros(5, np.int32), np.arange(5, dtype=np.int32))


def _pull(distilled, key, batch):
    """A meta-gradient towards the real mean, under noise that shows which key was used."""

    def loss(distilled):
        target = batch.images.mean(axis=0) + jax.random.normal(key, (4, 4, 1))
        leaves = distilled.images - target, distilled.labels, distilled.log_lr
        return sum(jnp.mean(leaf**2) for leaf in leaves)

    return jax.value_and_grad(loss)(distilled)


OPTIMIZER = outer.optimizer(STEPS, **RATES)
LOOP = outer.distiller(_pull, OPTIMIZER)
UPDATE = jax.jit(LOOP.update)
START = LOOP.init(_distilled(np.random.default_rng(0)), KEY)


def _plain(state):
    return state.replace(key=jax.random.key_data(state.key))


def _assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, _plain(a), _plain(b))


def _states(state, count):
    states = [state]
    for _ in range(count):
        states.append(UPDATE(states[-1], _batch(states[-1].step))[0])
    return states


def test_a_step_is_the_meta_gradient_and_optax_by_hand():
    pull, adam, apply = map(jax.jit, (_pull, OPTIMIZER.update, optax.apply_updates))
    state = START
    for step in range(3):
        loss, grads = pull(state.learned, jax.random.fold_in(KEY, step), _batch(step))
        updates, opt_state = adam(grads, state.opt_state, state.learned)
        expected = apply(state.learned, updates), opt_state
        state, actual_loss = UPDATE(state, _batch(step))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            (state.learned, state.opt_state, actual_loss),
            (*expected, loss),
        )
        assert (int(state.step), int(state.skipped)) == (step + 1, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(bad, where):
    def meta_gradient(distilled, _, batch):
        loss, value = batch.images.ravel()
        ones = jax.tree.map(jnp.ones_like, distilled)
        return loss, dataclasses.replace(ones, labels=ones.labels.at[1, 2, 0].set(value))

    loop = outer.distiller(meta_gradient, OPTIMIZER)
    update, batch = jax.jit(loop.update), _batch(1.0)
    good = dataclasses.replace(batch, images=np.ones((1, 1, 2, 1), np.float32))
    images = good.images.copy()
    images[0, 0, int(where == "gradient"), 0] = bad
    once, _ = update(START, good)
    skipped, _ = update(once, dataclasses.replace(batch, images=images))
    counted = {"skipped": jnp.int32(1), "skipped_in_a_row": jnp.int32(1)}
    _assert_same(skipped, once.replace(step=jnp.int32(2), **counted))
    again, _ = update(skipped, dataclasses.replace(batch, images=images))
    assert (int(again.skipped), int(again.skipped_in_a_row)) == (2, 2)
    after, _ = update(skipped, good)
    counted = {"skipped": jnp.int32(1), "skipped_in_a_row": jnp.int32(0)}
    _assert_same(after, update(once, good)[0].replace(step=jnp.int32(3), **counted))


def test_a_run_resumed_from_any_state_ends_the_same():
    states = _states(START, STEPS)
    for done, state in enumerate(states):
        saved = jax.tree.map(np.asarray, _plain(state))
        loaded = jax.tree.map(jnp.asarray, saved)
        loaded = loaded.replace(key=jax.random.wrap_key_data(loaded.key))
        _assert_same(_states(loaded, STEPS - done)[-1], states[-1])


def test_several_steps_in_one_call_are_as_many_single_ones():
    # Not bit for bit: XLA may fuse the body of a loop in another way.
    call = jax.jit(several_steps(LOOP, lambda feed, _: feed, STEPS // 2))
    state, losses = START, []
    for _ in range(2):
        state, part = call(state, _batch(1.0))
        losses.extend(part)
    expected, singles = START, []
    for _ in range(STEPS):
        expected, loss = UPDATE(expected, _batch(1.0))
        singles.append(loss)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        (_plain(state), losses),
        (_plain(expected), singles),
    )


def test_no_key_is_used_twice():
    """Neither by batches nor by networks, several of which are drawn from parts of a key."""
    used = [KEY]

    def draw(feed, key):
        used.append(key)
        return feed

    def meta_gradient(distilled, key, _):
        used.extend([key, *jax.random.split(key, 4)])
        return jnp.float32(0), jax.tree.map(jnp.zeros_like, distilled)

    loop = outer.distiller(meta_gradient, optax.sgd(0.1))
    with jax.disable_jit():  # so that the keys are values
        several_steps(loop, draw, 3)(loop.init(START.learned, KEY), _batch(0.0))
    distinct = {tuple(np.asarray(jax.random.key_data(key))) for key in used}
    assert len(used) == len(distinct) == 1 + 3 * (1 + 1 + 4)


def _adam(start, gradients, peaks, clip, warmup):
    """Kingma & Ba's algorithm 1 with clipping and the schedule, in NumPy."""
    x = [np.asarray(leaf, np.float64) for leaf in start]
    m, v = ([np.zeros_like(leaf) for leaf in x] for _ in range(2))
    for t, gradient in enumerate(gradients):
        learned = [np.ravel(leaf) for leaf, peak in zip(gradient, peaks, strict=True) if peak]
        norm = np.linalg.norm(np.concatenate(learned).astype(np.float64))
        if t < warmup:
            share = t / warmup
        else:
            progress = (t - warmup) / (len(gradients) - warmup)
            share = 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2
        for i, peak in enumerate(peaks):
            g = gradient[i] * min(1, clip / norm)
            m[i] = 0.5 * m[i] + 0.5 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            mean, square = m[i] / (1 - 0.5 ** (t + 1)), v[i] / (1 - 0.999 ** (t + 1))
            x[i] = x[i] - share * peak * mean / (np.sqrt(square) + 1e-8)
    return x


@pytest.mark.parametrize(("clip", "warmup", "frozen"), [(1.0, 0, False), (0.3, 2, True)])
def test_the_optimizer_is_clipped_adam_with_a_schedule(clip, warmup, frozen):
    rng = np.random.default_rng(1)
    peaks = (0.1, 0.0, 0.0) if frozen else (0.1, 0.03, 0.01)
    rates = dict(zip(("images_lr", "labels_lr", "rates_lr"), peaks, strict=True))
    optimizer = outer.optimizer(8, **rates, clip=clip, warmup=warmup)
    update = jax.jit(optimizer.update)
    # Norms from 0.01 to 100: some are clipped.
    scales = 10.0 ** np.linspace(-3, 1, 8)
    gradients = [jax.tree.map(lambda leaf, s=s: s * leaf, _distilled(rng)) for s in scales]
    data = START.learned
    state = optimizer.init(data)
    for gradient in gradients:
        updates, state = update(gradient, state, data)
        data = optax.apply_updates(data, updates)
    plain = [tuple(jax.tree.leaves(gradient)) for gradient in gradients]
    expected = _adam(jax.tree.leaves(START.learned), plain, peaks, clip, warmup)
    for actual, leaf in zip(jax.tree.leaves(data), expected, strict=True):
        # In float32, 1 - 0.999 is off by 6e-5 of itself.
        np.testing.assert_allclose(actual, leaf, rtol=0, atol=1e-5)
    if frozen:
        np.testing.assert_array_equal(data.labels, START.learned.labels)
        np.testing.assert_array_equal(data.log_lr, START.learned.log_lr)


def test_a_running_norm_bounds_what_is_much_larger_than_before():
    norms, multiple = [1.0, 1.5, 100.0, 1.2, 0.01, 3.0, 0.0, 50.0], 2.0
    clip = outer.clip_by_running_norm(multiple)
    direction = np.array([0.6, 0.8], np.float32)
    state, average = clip.init(direction), None
    for norm in norms:
        updates, state = clip.update({"a": jnp.asarray(norm * direction)}, state)
        most = norm if average is None else multiple * average
        clipped = min(norm, most)
        average = norm if average is None else 0.9 * average + 0.1 * clipped
        np.testing.assert_allclose(updates["a"], clipped * direction, rtol=1e-5)
        np.testing.assert_allclose(state, average, rtol=1e-5)


def test_the_running_norm_is_that_of_images_and_labels_and_not_of_what_is_frozen():
    optimizer = outer.optimizer(8, images_lr=0.1, labels_lr=0.1, rates_lr=0, clip=1e9, ema_clip=1.0)
    data = START.learned
    small = jax.tree.map(jnp.ones_like, data)
    state = optimizer.init(data)
    for gradient in (small, small.replace(log_lr=1e6 * small.log_lr)):
        _, state = optimizer.update(gradient, state, data)
        norm = np.sqrt(data.images.size + data.labels.size)
        np.testing.assert_allclose(state[2], norm, rtol=1e-5)
    _, state = optimizer.update(small.replace(labels=10 * small.labels), state, data)
    np.testing.assert_allclose(state[2], norm, rtol=1e-5)  # clipped to the mean so far


def test_clipped_labels_stay_between_0_and_1():
    optimizer = outer.optimizer(8, **RATES, rule="clipped")
    rng = np.random.default_rng(2)
    labels = np.eye(3, dtype=np.float32)[None, :, :2]
    data = START.learned.replace(labels=jnp.asarray(labels))
    state, free = optimizer.init(data), jnp.asarray(labels)
    for _ in range(6):
        gradient = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), data)
        updates, state = optimizer.update(gradient, state, data)
        data = optax.apply_updates(data, updates)
        assert data.labels.min() > -1e-6
        assert data.labels.max() < 1 + 1e-6
    assert not np.array_equal(data.labels, free)
    assert data.images.min() < -1  # which are not clipped


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images_lr": -1}, "`images_lr` is -1; it must not be negative"),
        ({"images_lr": 0, "labels_lr": 0, "rates_lr": 0}, "nothing would be learned"),
        ({"labels_lr": -0.1}, "`labels_lr` is -0.1; it must not be negative"),
        ({"rates_lr": float("nan")}, "`rates_lr` is nan"),
        ({"clip": 0}, "`clip` is 0"),
        ({"ema_clip": -1}, "`ema_clip` is -1; it must not be negative"),
        ({"warmup": -1}, "`warmup` is -1"),
        ({"warmup": 10}, "`warmup` is 10, which leaves none of the 10 outer steps"),
        ({"outer_steps": 0}, "`outer_steps` is 0"),
    ],
)
def test_an_optimizer_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        outer.optimizer(**{"outer_steps": 10, **RATES, **change})


def test_distilled_noise_teaches_fresh_networks():
    """Three images learn what 300 show; the noise that they were does not teach it."""
    network, rng, steps = toy.network(), np.random.default_rng(5), 100
    real, held_out = toy.batch(rng, 300), toy.batch(rng, 300)
    noise = init.noise(
        jax.random.key(0),
        steps=1,
        images_per_step=3,
        shape=toy.SHAPE,
        num_classes=toy.CLASSES,
        epochs=3,
        lr=0.3,
        rule="softmax",
    )
    optimizer = outer.optimizer(steps, images_lr=0.1, labels_lr=0.05, rates_lr=0.05)
    loop = outer.distiller(after_training(network, rule="softmax"), optimizer)
    call = jax.jit(several_steps(loop, toy.draw, steps))
    state, losses = call(loop.init(noise, jax.random.key(1)), real)
    assert np.mean(losses[-10:]) < 0.25 * np.mean(losses[:10])
    assert int(state.skipped) == 0

    def accuracies(distilled):
        starts = map(network.init, jax.random.split(jax.random.key(2), 5))
        trained = [replay(network, start, distilled, rule="softmax") for start in starts]
        return [toy.accuracy(network, params, held_out) for params in trained]

    assert min(accuracies(state.learned)) > 0.9
    assert np.mean(accuracies(noise)) < 0.6
