import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.privacy import clipping


def _by_hand(rows, norm):
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row / max(1.0, np.linalg.norm(row) / norm)
    return total


def _as_tree(rows):
    return {
        "a": jnp.asarray(rows[:, :2]),
        "b": [jnp.asarray(rows[:, 2:].reshape(len(rows), -1, 2))],
    }


def _flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_a_sum_of_clipped_rows_is_that_of_a_loop():
    rows = np.random.default_rng(0).normal(size=(7, 6)) * np.logspace(-2, 2, 7)[:, None]
    with jax.enable_x64(True):
        total = clipping.clipped_sum(_as_tree(rows), 0.7)
        np.testing.assert_allclose(_flat(total), _by_hand(rows, 0.7), rtol=1e-12)
        some = np.arange(7) % 2 == 0
        part = clipping.clipped_sum(_as_tree(rows), 0.7, jnp.asarray(some))
        np.testing.assert_allclose(_flat(part), _by_hand(rows[some], 0.7), rtol=1e-12)


def test_what_is_short_stays_as_it_is_and_zero_is_no_fault():
    tree = {"a": jnp.array([0.3, -0.4]), "b": jnp.zeros(3)}
    jax.tree.map(np.testing.assert_array_equal, clipping.clip_by_norm(tree, 0.5), tree)
    assert not _flat(clipping.clip_by_norm({"a": jnp.zeros(2)}, 1.0)).any()


@pytest.mark.parametrize("harm", [np.nan, np.inf, -np.inf, 3e38])
def test_a_patient_who_is_not_finite_has_no_part(harm):
    rows = np.array([[1, 2, 3, 4, 5, 6.0], [harm, harm, 0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(
        _flat(clipping.clipped_sum(_as_tree(rows), 1.0)),
        _flat(clipping.clipped_sum(_as_tree(rows[:1]), 1.0)),
    )


def test_one_patient_more_or_less_moves_no_sum_by_more_than_the_sensitivity():
    rng, farthest = np.random.default_rng(1), 0.0
    total = jax.jit(clipping.clipped_sum, static_argnums=1)
    for _ in range(1000):
        rows = rng.normal(size=(9, 6)) * 10 ** rng.uniform(-3, 3, (9, 1))
        rows[rng.integers(9)] *= rng.choice([0, 1, np.nan])
        here = np.ones(9, bool)
        here[rng.integers(9)] = False
        norm = 2.5
        whole = total(_as_tree(rows.astype(np.float32)), norm, np.ones(9, bool))
        without = total(_as_tree(rows.astype(np.float32)), norm, here)
        farthest = max(farthest, np.linalg.norm(_flat(whole) - _flat(without)))
    # Up to rounding in float32, and reached: the bound is not a loose one.
    assert 0.999 * clipping.sensitivity(2.5) < farthest < (1 + 1e-5) * clipping.sensitivity(2.5)


def test_no_norm_is_refused():
    for function in (clipping.sensitivity, lambda norm: clipping.clip_by_norm(jnp.ones(2), norm)):
        with pytest.raises(ValueError, match="`norm` is 0"):
            function(0)
