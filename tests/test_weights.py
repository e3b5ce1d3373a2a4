import hashlib
import lzma

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill import weights

START = {"b": {"bias": jnp.ones(5), "kernel": jnp.zeros((3, 3, 4, 5))}, "a": jnp.ones((7, 9))}


def _sparse(rng, share=0.1, scale=1.0):
    def one(leaf):
        drawn = rng.laplace(size=leaf.shape) * (rng.random(leaf.shape) < share)
        return jnp.asarray(scale * drawn, jnp.float32)

    return jax.tree.map(one, START)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_weights_come_back_from_their_codes(share):
    delta = _sparse(np.random.default_rng(1), share)
    steps = weights.steps_of(delta, 0.25)
    content = weights.pack(weights.codes(delta, steps))
    coded = weights.unpack(content, START)
    found = weights.restored(START, coded)
    expected = jax.tree.map(jnp.add, START, weights.rounded(delta, steps))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    error = jax.tree.map(lambda f, s, d: np.abs(f - s - d).max(), found, START, delta)
    assert max(error["a"], error["b"]["kernel"]) <= 0.1251
    assert error["b"]["bias"] <= float(np.abs(delta["b"]["bias"]).max()) / 127


def test_the_size_comes_near_the_entropy():
    """An order-0 entropy coder of each value needs the entropy; gaps and LZMA, little more."""
    rng, shape = np.random.default_rng(0), (1000, 1000)
    delta = {"w": jnp.asarray(rng.laplace(size=shape), jnp.float32)}
    for share in (0.01, 0.03, 0.1):
        step = weights.threshold(delta, share)
        coded = weights.codes(delta, weights.steps_of(delta, step))
        _, counts = np.unique(coded.values[0], return_counts=True)
        p = counts / counts.sum()
        assert abs(1 - p.max() - share) < 0.01 * share
        entropy = -(p * np.log2(p)).sum() * delta["w"].size / 8
        assert entropy < len(weights.pack(coded)) < 1.06 * entropy


def test_long_gaps_and_large_codes_come_back():
    values = np.zeros(70_000, np.int32)
    values[[0, 254, 255, 511, 1022, 69_999]] = (1, -1, 128, -127, 2**15, -(2**15))
    coded = weights.Codes(np.float32([0.5]), [values])
    back = weights.unpack(weights.pack(coded), [np.zeros(70_000)])
    np.testing.assert_array_equal(back.values[0], values)
    assert back.steps.tolist() == [0.5]


def test_rounding_has_the_gradient_of_no_rounding():
    delta = {"w": jnp.array([[0.3, -1.2, 0.9]])}
    steps, slope = np.float32([0.5]), jnp.array([[1.0, 2.0, 3.0]])
    found = jax.grad(lambda d: jnp.sum(slope * weights.rounded(d, steps)["w"]))(delta)
    np.testing.assert_array_equal(found["w"], slope)
    expected = np.float32([[0.5, -1.0, 1.0]])
    np.testing.assert_allclose(weights.rounded(delta, steps)["w"], expected, rtol=1e-6)


def test_harmed_codes_are_refused_or_are_codes_of_the_network():
    delta = _sparse(np.random.default_rng(1))
    sound = weights.pack(weights.codes(delta, weights.steps_of(delta, 0.25)))
    rng, refused = np.random.default_rng(0), 0
    for _ in range(500):
        harmed = bytearray(sound)
        harmed[rng.integers(len(harmed))] ^= 1 << rng.integers(8)
        harmed = harmed[: rng.integers(len(harmed))] if rng.random() < 0.3 else harmed
        try:
            coded = weights.unpack(bytes(harmed), START)
        except ValueError:
            refused += 1
        else:
            assert [v.shape for v in coded.values] == [x.shape for x in jax.tree.leaves(START)]
            assert (coded.steps > 0).all()
    assert refused > 300


def test_a_stream_that_grows_without_end_is_refused_before_it_is_unpacked():
    bomb = lzma.compress(bytes(1 << 24), lzma.FORMAT_RAW, filters=weights._FILTERS)
    head = weights._HEAD.pack(3, 248, 10, len(bomb), 0) + np.ones(3, "<f4").tobytes()
    with pytest.raises(ValueError, match="longer or shorter than its codes"):
        weights.unpack(head + bomb, START)
    with pytest.raises(ValueError, match="not of this network"):
        weights.unpack(weights._HEAD.pack(3, 248, 249, len(bomb), 0) + bytes(12) + bomb, START)


def test_the_digest_is_that_of_the_leaves_in_order_of_their_names():
    content = b"".join(
        head + np.asarray(leaf).tobytes()
        for head, leaf in (
            (b"float32 [7, 9]\n", START["a"]),
            (b"float32 [5]\n", START["b"]["bias"]),
            (b"float32 [3, 3, 4, 5]\n", START["b"]["kernel"]),
        )
    )
    assert weights.digest(START) == hashlib.sha256(content).hexdigest()


def test_probes_are_bytes_of_shake_256():
    images = weights.probes((4, 3, 2))
    content = hashlib.shake_256(b"gxdistill probe").digest(8 * 24)
    np.testing.assert_allclose(images.ravel(), [b / 127.5 - 1 for b in content], atol=1e-7)
    assert images.shape == (8, 4, 3, 2)
