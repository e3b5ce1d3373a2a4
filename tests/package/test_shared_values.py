import hashlib
import math
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.package import shared_values

START = {"b": {"bias": jnp.ones(5), "kernel": jnp.zeros((3, 3, 4, 5))}, "a": jnp.ones((7, 9))}
SIZES = (63, 5, 180)  # In the order of the names.


def _values(fineness, scale=2.0):
    count = sum(shared_values.counts(START, fineness))
    drawn = np.random.default_rng(1).laplace(size=count)
    return jnp.asarray(scale * drawn, jnp.float32)


def _by_the_book(values, fineness):
    """The weights by a loop over the rule of docs/format.md."""
    bits = hashlib.shake_256(b"gxdistill signs").digest(31)
    moved, first, n = [], 0, 0
    for leaf in jax.tree.leaves(START):
        k = min(leaf.size, math.isqrt(fineness * leaf.size))
        far = 1 / 16 if leaf.ndim == 1 else math.prod(leaf.shape[:-1]) ** -0.5
        for i, weight in enumerate(np.asarray(leaf).ravel().tolist()):
            down = bits[n // 8] >> (7 - n % 8) & 1
            moved.append(weight + (-far if down else far) * (values[first + i % k] if k else 0))
            n += 1
        first += k
    assert first == len(values)
    return moved


@pytest.mark.parametrize("fineness", [1, 7, 100, 2**31])
def test_weights_come_back_from_their_codes(fineness):
    values = _values(fineness)
    coded = shared_values.codes(values, fineness)
    back = shared_values.unpack(shared_values.pack(coded), START)
    assert back.fineness == fineness
    np.testing.assert_array_equal(back.values, coded.values)
    found = shared_values.restored(START, back)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])
    near = (np.rint(np.asarray(values) / 0.5) * 0.5).clip(-15.5, 15.5)
    np.testing.assert_allclose(flat, _by_the_book(near.tolist(), fineness), rtol=1e-6, atol=1e-6)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, START)


@pytest.mark.parametrize("fineness", [7, 100])
def test_training_sees_the_weights_that_are_restored(fineness):
    values = _values(fineness)
    seen = shared_values.moved(
        START, shared_values.factors(START), shared_values.round_values(values), fineness
    )
    found = shared_values.restored(START, shared_values.codes(values, fineness))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), seen, found)


def test_there_are_as_many_values_as_asked_for_and_more_of_small_leaves():
    for share in (0.2, 0.9):
        fineness = shared_values.fineness_of(START, share)
        found = shared_values.counts(START, fineness)
        assert sum(found) <= share * sum(SIZES) < sum(shared_values.counts(START, fineness + 1))
        assert found == [min(n, math.isqrt(fineness * n)) for n in SIZES]
    assert shared_values.counts(START, shared_values.fineness_of(START, 1.0)) == [*SIZES]
    large = {"w": jax.ShapeDtypeStruct((3, 3, 512, 512), jnp.float32)}
    assert sum(shared_values.counts(large, shared_values.fineness_of(large, 1.0))) <= 2**17


def test_signs_are_fair_and_factors_as_large_as_a_start():
    like = {"w": jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)}
    factor = shared_values.factors(like)["w"]
    assert abs(np.mean(factor > 0) - 0.5) < 4 * 0.5 / math.sqrt(factor.size)
    start = jax.nn.initializers.lecun_normal()(jax.random.key(0), factor.shape)
    np.testing.assert_allclose(np.abs(factor), float(start.std()), rtol=0.02)


def test_rounding_has_the_gradient_of_no_rounding():
    values, slope = jnp.array([0.3, -1.2, 0.9, 99.0]), jnp.array([1.0, 2.0, 3.0, 4.0])
    found = jax.grad(lambda v: jnp.sum(slope * shared_values.round_values(v)))(values)
    np.testing.assert_array_equal(found, slope)
    np.testing.assert_allclose(shared_values.round_values(values), [0.5, -1.0, 1.0, 15.5])


def test_harmed_codes_are_refused_or_are_codes_of_the_network():
    sound = shared_values.pack(shared_values.codes(_values(100), 100))
    rng, read = np.random.default_rng(0), 0
    for _ in range(500):
        harmed = bytearray(sound)
        harmed[rng.integers(len(harmed))] ^= 1 << rng.integers(8)
        harmed = harmed[: rng.integers(len(harmed))] if rng.random() < 0.3 else harmed
        try:
            coded = shared_values.unpack(bytes(harmed), START)
        except ValueError:
            continue
        read += 1
        assert len(coded.values) == sum(shared_values.counts(START, coded.fineness))
        assert np.abs(coded.values).max() <= 31
    assert 0 < read < 300


def test_codes_that_would_take_long_are_refused_before_they_are_read():
    large = {"w": jax.ShapeDtypeStruct((3, 3, 512, 512), jnp.float32)}
    many = struct.pack("<2L", 2**32 - 1, 9 * 512 * 512)
    sound = shared_values.pack(shared_values.codes(_values(100), 100))
    for content, like, reason in (
        (many, large, "not of this network"),
        (sound, large, "not of this network"),
        (sound[:5], START, "cut short"),
        (sound[:-1], START, "followed by others, or cut short"),
        (sound + b"x", START, "followed by others, or cut short"),
    ):
        with pytest.raises(ValueError, match=reason):
            shared_values.unpack(content, like)


def test_the_digest_is_that_of_the_leaves_in_order_of_their_names():
    content = b"".join(
        head + np.asarray(leaf).tobytes()
        for head, leaf in (
            (b"float32 [7, 9]\n", START["a"]),
            (b"float32 [5]\n", START["b"]["bias"]),
            (b"float32 [3, 3, 4, 5]\n", START["b"]["kernel"]),
        )
    )
    assert shared_values.digest(START) == hashlib.sha256(content).hexdigest()


def test_probes_are_bytes_of_shake_256():
    images = shared_values.probes((4, 3, 2))
    content = hashlib.shake_256(b"gxdistill probe").digest(8 * 24)
    np.testing.assert_allclose(images.ravel(), [b / 127.5 - 1 for b in content], atol=1e-7)
    assert images.shape == (8, 4, 3, 2)
