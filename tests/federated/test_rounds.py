"""A round beside the same in NumPy, alone, resumed, noised, and over many sites."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gxdistill.federated import aggregation, local, rounds
from gxdistill.federated.adaptive import AdaptiveBound
from tests.federated import linear

START = {"w": jnp.array([0.5, -1.0, 2.0])}
STEPS, LR = 3, 0.1


def _federation(weights, draw=linear.draw_all, *, server=None, proximal=0.0, **changes):
    training = local.local_training(
        local.mean_gradient(linear.loss), optax.sgd(LR), STEPS, proximal=proximal
    )
    server = server or aggregation.server_optimizer("sgd", 1.0)
    return rounds.federation(training, draw, np.asarray(weights), server=server, **changes)


def _run(loop, feed, count=1, state=None):
    state = loop.init(START, jax.random.key(0)) if state is None else state
    update = jax.jit(loop.update)
    for _ in range(count):
        state, loss = update(state, feed)
    return state, loss


def _trained(w, x, y, steps=STEPS, proximal=0.0):
    start = w
    for _ in range(steps):
        w = w - LR * (linear.gradient(w, x, y) + proximal * (w - start))
    return w


def test_fedavg_of_one_site_is_central_sgd():
    x, y = linear.sites(1)
    state, _ = _run(_federation([7.0]), (x, y), count=4)
    expected = _trained(np.array(START["w"]), x[0], y[0], steps=4 * STEPS)
    np.testing.assert_allclose(state.learned["w"], expected, rtol=1e-5)
    assert int(state.step) == 4
    assert int(state.skipped) == 0


def test_the_mean_of_a_round_is_weighted_as_numpy_does():
    x, y = linear.sites(3)
    weights = np.array([5.0, 1.0, 2.0])
    state, loss = _run(_federation(weights), (x, y))
    each = [_trained(np.array(START["w"]), *site) for site in zip(x, y, strict=True)]
    np.testing.assert_allclose(state.learned["w"], np.average(each, 0, weights), rtol=1e-5)
    losses = []
    for site in zip(x, y, strict=True):
        w = [_trained(np.array(START["w"]), *site, steps=k) for k in range(STEPS)]
        losses.append(np.mean([0.5 * np.mean((site[0] @ v - site[1]) ** 2) for v in w]))
    np.testing.assert_allclose(loss, np.average(losses, 0, weights), rtol=1e-5)


def test_the_proximal_term_has_its_analytic_gradient():
    x, y = linear.sites(2)
    state, _ = _run(_federation([1.0, 1.0], proximal=0.7), (x, y))
    each = [_trained(np.array(START["w"]), *s, proximal=0.7) for s in zip(x, y, strict=True)]
    np.testing.assert_allclose(state.learned["w"], np.mean(each, 0), rtol=1e-5)


def test_fedadam_moves_by_adam_along_the_mean_update():
    x, y = linear.sites(2)
    loop = _federation([1.0, 1.0], server=aggregation.server_optimizer("adam", 0.01))
    state, _ = _run(loop, (x, y), count=2)
    w, m, v = np.array(START["w"]), 0.0, 0.0
    for t in (1, 2):
        step = np.mean([_trained(w, *site) - w for site in zip(x, y, strict=True)], 0)
        m, v = 0.9 * m + 0.1 * step, 0.99 * v + 0.01 * step**2
        w = w + 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
    np.testing.assert_allclose(state.learned["w"], w, rtol=1e-5)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_resumed_federation_ends_bit_for_bit_as_one_that_was_not_interrupted(stop):
    x, y = linear.sites(3)
    loop = _federation(
        [1.0, 2.0, 3.0],
        linear.draw_some,
        server=aggregation.server_optimizer("adam", 0.1),
        rate=lambda step: 1 / (1.0 + step),
        participation=0.6,
        protection=rounds.Protection(0.5, 0.3, AdaptiveBound()),
    )
    whole, _ = _run(loop, (x, y), count=4)
    part, _ = _run(loop, (x, y), count=stop) if stop else (loop.init(START, jax.random.key(0)), 0)
    kept = jax.tree.map(
        lambda leaf: (
            leaf
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else jnp.array(np.asarray(leaf).tolist(), leaf.dtype)
        ),
        part,
    )
    resumed, _ = _run(loop, (x, y), count=4 - stop, state=kept)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_the_noise_of_a_site_is_gaussian_of_multiplier_times_bound():
    """By Kolmogorov-Smirnov, over updates that are clipped to nothing but the noise."""
    noise, bound, size = 1.7, 0.05, 4000

    def local_zero(params, *_):
        return jax.tree.map(jnp.zeros_like, params), jnp.zeros(())

    loop = rounds.federation(
        local_zero,
        linear.draw_all,
        np.ones(1),
        server=aggregation.server_optimizer("sgd", 1.0),
        protection=rounds.Protection(bound, noise),
    )
    start = {"w": jnp.zeros(size)}
    first, _ = loop.update(loop.init(start, jax.random.key(3)), None)
    second, _ = loop.update(first, None)
    draws = np.asarray(first.learned["w"]), np.asarray(second.learned["w"] - first.learned["w"])
    for values in draws:
        assert stats.kstest(values / (noise * bound), "norm").pvalue > 1e-3
    assert abs(stats.pearsonr(*draws).statistic) < 0.06  # No noise is used twice.


def test_an_update_is_clipped_before_noise_and_mean():
    x, y = linear.sites(2)
    protection = rounds.Protection(0.01)
    state, _ = _run(_federation([3.0, 1.0], protection=protection), (x, y))
    start = np.array(START["w"])
    each = [_trained(start, *site) - start for site in zip(x, y, strict=True)]
    each = [0.01 * update / np.linalg.norm(update) for update in each]
    expected = start + np.average(each, 0, [3, 1])
    np.testing.assert_allclose(state.learned["w"], expected, rtol=1e-5)


def test_a_site_whose_update_is_not_finite_is_left_out():
    x, y = linear.sites(3)
    y[1] = np.nan
    state, _ = _run(_federation([1.0, 5.0, 2.0]), (x, y))
    start = np.array(START["w"])
    each = [_trained(start, x[i], y[i]) for i in (0, 2)]
    np.testing.assert_allclose(state.learned["w"], np.average(each, 0, [1, 2]), rtol=1e-5)
    assert int(state.skipped) == 0


def test_a_round_without_a_site_is_skipped():
    x, y = linear.sites(2)
    y[:] = np.inf
    state, _ = _run(_federation([1.0, 1.0]), (x, y), count=2)
    np.testing.assert_array_equal(state.learned["w"], START["w"])
    assert (int(state.skipped), int(state.skipped_in_a_row)) == (2, 2)


def test_each_site_takes_part_as_often_as_asked():
    """Of 64 sites, each with an update of its own, so that the mean tells how many joined."""
    sites, chance, count = 64, 0.25, 40

    def local_site(_, draw, key, __):
        return draw(key), jnp.ones(())

    loop = rounds.federation(
        local_site,
        lambda _, site, __: {"w": jnp.zeros(sites).at[site].set(1.0)},
        np.ones(sites),
        server=aggregation.server_optimizer("sgd", 1.0),
        participation=chance,
    )
    state, update = loop.init({"w": jnp.zeros(sites)}, jax.random.key(1)), jax.jit(loop.update)
    joined = np.zeros(sites)
    for _ in range(count):
        before = np.asarray(state.learned["w"])
        state, _ = update(state, None)
        joined += np.asarray(state.learned["w"]) - before > 0
    assert stats.binomtest(int(joined.sum()), sites * count, chance).pvalue > 1e-3
    # The sites are alike: between them there is a binomial's variance.
    spread = stats.chisquare(joined).statistic / (1 - chance)
    assert 1e-3 < stats.chi2.cdf(spread, sites - 1) < 1 - 1e-3


def test_memory_does_not_grow_with_the_number_of_sites():
    size = 50_000

    def program(sites):
        training = local.local_training(
            lambda p, _, batch: (jnp.sum(p["w"]), {"w": p["w"] + jnp.sum(batch)}),
            optax.sgd(LR),
            STEPS,
        )
        loop = rounds.federation(
            training,
            lambda feed, site, _: feed[site],
            np.ones(sites),
            server=aggregation.server_optimizer("sgd", 1.0),
        )
        state = loop.init({"w": jnp.ones(size)}, jax.random.key(0))
        compiled = jax.jit(loop.update).lower(state, jnp.ones((sites, 2))).compile()
        after, _ = compiled(state, jnp.ones((sites, 2)))
        assert np.isfinite(after.learned["w"]).all()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = program(4), program(64)
    assert many - few < size  # A quarter of one site's weights; all would be 15 times 4 * size.


def test_adaptive_bound_follows_the_norms():
    """The bound goes to the median norm of updates whose norms are 1, 2, ... 9."""
    rule = AdaptiveBound(quantile=0.5, rate=0.3, bit_noise=0.01)

    def local_site(_, draw, key, __):
        return {"w": draw(key)}, jnp.ones(())

    loop = rounds.federation(
        local_site,
        lambda _, site, __: jnp.array([1.0 + site, 0.0]),
        np.ones(9),
        server=aggregation.server_optimizer("sgd", 1.0),
        protection=rounds.Protection(0.05, 0.0, rule),
    )
    state, update = loop.init({"w": jnp.zeros(2)}, jax.random.key(0)), jax.jit(loop.update)
    for _ in range(60):
        state, _ = update(state, None)
    assert 4 <= np.exp(float(state.opt_state.log_bound)) <= 6


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="each of the sites needs one above 0"):
        _federation([1.0, 0.0])
    with pytest.raises(ValueError, match="`participation` is 0"):
        _federation([1.0], participation=0)
    with pytest.raises(ValueError, match="a robust mean keeps the most"):
        _federation(
            [1.0],
            robust=aggregation.median,
            protection=rounds.Protection(1.0, 1.0),
        )
    with pytest.raises(ValueError, match="`noise` is -1"):
        rounds.Protection(1.0, -1)
    with pytest.raises(ValueError, match="`proximal` is -1"):
        _federation([1.0], proximal=-1)
