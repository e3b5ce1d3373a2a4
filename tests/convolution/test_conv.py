import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.convolution import conv, packed
from gxdistill.convolution.conv import compiler_options, conv2d, conv_pool_relu

# Images [N, H, W, Ci], kernel [h, w, Co], stride, padding.
SMALL = [  # than the kernel
    ((3, 1, 1, 4), (3, 3, 5), 1, "SAME"),
    ((3, 2, 2, 4), (3, 3, 5), 2, "SAME"),
    ((2, 4, 2, 3), (5, 3, 4), 1, "SAME"),
    ((2, 3, 8, 1), (5, 5, 2), 2, "SAME"),
]
CASES = [
    ((2, 8, 8, 3), (3, 3, 4), 1, "SAME"),
    ((2, 9, 7, 1), (5, 5, 6), 1, "SAME"),
    ((2, 9, 8, 8), (3, 3, 4), 1, "VALID"),
    ((2, 8, 9, 8), (3, 3, 8), 2, "SAME"),
    ((1, 10, 8, 3), (5, 5, 2), 2, "VALID"),
    ((2, 8, 7, 8), (1, 1, 4), 2, "SAME"),
    ((2, 10, 9, 3), (7, 7, 4), 2, "SAME"),
    ((2, 7, 8, 5), (4, 1, 3), 1, "SAME"),
    ((2, 9, 8, 1), (3, 3, 45), 1, "SAME"),  # products far smaller than what they are of
    ((2, 9, 8, 2), (3, 2, 60), 2, "SAME"),
    ((1, 9, 7, 1), (4, 3, 64), 2, "VALID"),
    *SMALL,
]
PACKED = [  # And which of value and gradients for images and kernel are products of bfloat16.
    (((4, 6, 6, 16), (3, 3, 18), 1, "SAME"), (True, True, True)),
    (((3, 5, 5, 16), (3, 3, 16), 1, "SAME"), (True, True, False)),  # an odd number of pixels
    (((2, 9, 8, 18), (3, 3, 16), 2, "VALID"), (True, False, True)),
    (((2, 2, 2, 16), (3, 3, 16), 1, "SAME"), (True, True, True)),
    (((2, 6, 6, 17), (3, 3, 16), 1, "SAME"), (False, True, False)),  # which do not pair
]


def _xla(x, k, stride, padding):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, k, (stride, stride), padding, dimension_numbers=layout)


def _draw(images, kernel, count=2):
    """Draws `count` pairs of images and a kernel."""
    rng = np.random.default_rng(0)
    shapes = images, (*kernel[:2], images[3], kernel[2])
    return [tuple(rng.normal(size=s).astype(np.float32) for s in shapes) for _ in range(count)]


def _derivatives(convolve):
    """Value, gradient and Hessian-vector product, reverse over reverse, of a convolution cubed."""

    def loss(point):
        return jnp.sum(convolve(*point) ** 3)

    def slope(point, direction):
        along = jax.tree.map(jnp.vdot, jax.grad(loss)(point), direction)
        return sum(jax.tree.leaves(along))

    def all_three(point, direction):
        return convolve(*point), jax.grad(loss)(point), jax.grad(slope)(point, direction)

    return jax.jit(all_three)


@functools.cache  # so that a case is compiled once
def _xlas_derivatives(stride, padding):
    return _derivatives(lambda x, k: _xla(x, k, stride, padding))


def _assert_close(actual, expected, rtol):
    def close(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())

    jax.tree.map(close, actual, expected)


# Images [N, H, W, C], kernels' sides and features, layer by layer.
CHAINS = [
    ((2, 12, 13, 3), [(5, 4), (3, 5)]),  # the second layer drops a column
    ((1, 16, 15, 1), [(3, 2), (5, 3)]),
    ((3, 9, 6, 2), [(3, 4)]),
    ((2, 7, 4, 1), [(1, 3)]),
]


def _draw_layers(channels, sides):
    rng = np.random.default_rng(2)
    layers = []
    for side, features in sides:
        kernel = rng.normal(size=(side, side, channels, features)) / side
        layers.append((kernel.astype(np.float32), rng.normal(size=features).astype(np.float32)))
        channels = features
    return layers


@pytest.mark.parametrize(("images", "sides"), CHAINS)
def test_tiles_give_the_value_gradients_and_hessian_products_of_xlas_convolutions(images, sides):
    rng = np.random.default_rng(3)
    x, dx = rng.normal(size=(2, *images)).astype(np.float32)
    layers = _draw_layers(images[-1], sides)
    direction = dx, jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), layers)

    def derivatives(xla):
        def loss(point):
            return jnp.sum(conv_pool_relu(*point, xla=xla) ** 3)

        def all_of_them(point, direction):
            def along(point):
                return jax.jvp(loss, (point,), (direction,))[1]

            def slope(point):
                pairs = jax.tree.map(jnp.vdot, jax.grad(loss)(point), direction)
                return sum(jax.tree.leaves(pairs))

            value = conv_pool_relu(*point, xla=xla)
            return value, jax.grad(loss)(point), jax.grad(along)(point), jax.grad(slope)(point)

        return jax.jit(all_of_them)((x, layers), direction)

    _assert_close(derivatives(xla=False), derivatives(xla=True), rtol=1e-5)


def test_tiles_in_bfloat16_are_near_float32_and_summed_in_it():
    images, sides = CHAINS[0]
    x = np.random.default_rng(3).normal(size=images).astype(np.float32)
    layers = _draw_layers(images[-1], sides)
    exact = jax.jit(conv_pool_relu)(x, layers)
    rough = jax.jit(conv_pool_relu)(x.astype(jnp.bfloat16), layers)
    _assert_close(rough, exact, rtol=0.05)
    assert not np.array_equal(rough, exact)


@pytest.mark.parametrize(("images", "kernel", "stride", "padding"), CASES)
def test_value_gradients_and_hessian_products_equal_xlas(images, kernel, stride, padding):
    point, direction = _draw(images, kernel)
    ours = _derivatives(lambda x, k: conv2d(x, k, stride=stride, padding=padding))
    expected = _xlas_derivatives(stride, padding)(point, direction)
    _assert_close(ours(point, direction), expected, rtol=1e-5)


@pytest.mark.parametrize(("images", "kernel", "stride", "padding"), CASES[2:4])
def test_a_product_for_each_tap_equals_one_in_all(monkeypatch, images, kernel, stride, padding):
    point, direction = _draw(images, kernel)

    def derivatives():
        return _derivatives(lambda x, k: conv2d(x, k, stride=stride, padding=padding))

    together = derivatives().lower(point, direction)
    monkeypatch.setattr(conv, "_CACHED", 0)
    apart = derivatives().lower(point, direction)
    assert apart.as_text().count("dot_general") > together.as_text().count("dot_general")
    results = [lowered.compile()(point, direction) for lowered in (together, apart)]
    _assert_close(*results, rtol=1e-5)


def test_hessian_products_forward_over_reverse_and_reverse_over_forward_equal_xlas():
    images, kernel, stride, padding = CASES[3]
    point, direction = _draw(images, kernel)

    def products(convolve):
        def loss(point):
            return jnp.sum(convolve(*point) ** 3)

        def slope(point):
            return jax.jvp(loss, (point,), (direction,))[1]

        return jax.jit(
            lambda point: (
                jax.jvp(jax.grad(loss), (point,), (direction,))[1],
                jax.grad(slope)(point),
            )
        )

    ours = products(lambda x, k: conv2d(x, k, stride=stride, padding=padding))(point)
    xlas = products(lambda x, k: _xla(x, k, stride, padding))(point)
    _assert_close(ours, xlas, rtol=1e-5)
    _assert_close(ours[0], ours[1], rtol=1e-5)


@pytest.mark.parametrize(("images", "kernel", "stride", "padding"), SMALL)
def test_images_smaller_than_the_kernel_are_convolved_by_products(images, kernel, stride, padding):
    point, direction = _draw(images, kernel)
    ours = _derivatives(lambda x, k: conv2d(x, k, stride=stride, padding=padding))
    assert "stablehlo.convolution" not in ours.lower(point, direction).as_text()
    xlas = _xlas_derivatives(stride, padding)
    assert "stablehlo.convolution" in xlas.lower(point, direction).as_text()


@pytest.mark.parametrize("axes", [(0, None), (None, 3), (2, 0)])
def test_vmap_over_images_or_kernels_equals_a_loop(axes):
    rng = np.random.default_rng(4)
    operands = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 6, 5, 3), (3, 3, 3, 2))]
    count = 3
    stacked = [
        operand if axis is None else np.stack([operand * (i + 1) for i in range(count)], axis)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    scale = (np.arange(count) + 1.0) ** sum(axis is not None for axis in axes)
    expected = scale[:, None, None, None, None] * np.asarray(_xla(*operands, 1, "SAME"))
    actual = jax.jit(jax.vmap(conv2d, in_axes=axes))(*stacked)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_value_equals_a_loop():
    (x, k), stride = _draw((2, 9, 8, 3), (3, 5, 4), 1)[0], 2
    # "SAME" gives ceil(size / stride) outputs; of an odd number of pads the last side gets more.
    tall, wide = 5, 4
    pads = [(outs - 1) * stride + taps - size for outs, taps, size in ((5, 3, 9), (4, 5, 8))]
    padded = np.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)))
    expected = np.zeros((2, tall, wide, 4))
    for n, i, j, o in itertools.product(*map(range, expected.shape)):
        window = padded[n, i * stride : i * stride + 3, j * stride : j * stride + 5]
        expected[n, i, j, o] = np.sum(window.astype(np.float64) * k[..., o])
    np.testing.assert_allclose(conv2d(x, k, stride=stride), expected, rtol=0, atol=1e-5)


def _rounded(x):
    return jnp.asarray(x, jnp.bfloat16).astype(jnp.float32)


@pytest.mark.parametrize(("case", "packs"), PACKED)
@pytest.mark.parametrize("gathered", [2**22, 1])  # values at once: all images, or one
def test_bfloat16_products_are_those_of_rounded_operands(monkeypatch, case, packs, gathered):
    monkeypatch.setattr(conv, "_GATHERED", gathered)
    images, kernel, stride, padding = case
    (x, k), _ = _draw(images, kernel)

    def ours(x, k):
        return conv2d(x, k, stride=stride, padding=padding, dtype=jnp.bfloat16)

    def expected(x, k):
        return _xla(x, k, stride, padding)

    def both(convolve, x, k, dy):
        y, pull = jax.vjp(convolve, x, k)
        return y, *pull(dy)

    dy = np.random.default_rng(5).normal(size=jax.eval_shape(expected, x, k).shape)
    dy = dy.astype(np.float32)
    results = jax.jit(functools.partial(both, ours))(x, k, dy)
    wanted = jax.jit(functools.partial(both, expected))(*map(_rounded, (x, k, dy)))
    exact = jax.jit(functools.partial(both, expected))(x, k, dy)
    for ours, rounded, plain, rounds in zip(results, wanted, exact, packs, strict=True):
        near, far = (np.abs(ours - other).max() / np.abs(plain).max() for other in (rounded, plain))
        assert (near if rounds else far) < 1e-5
        assert far < 0.02


def test_bfloat16_operands_have_gradients_of_their_own_type():
    images, kernel, stride, padding = PACKED[0][0]
    (x, k), _ = _draw(images, kernel)
    half = tuple(jnp.asarray(a, jnp.bfloat16) for a in (x, k))
    ours = _derivatives(lambda x, k: conv2d(x, k, stride=stride, padding=padding))(half, half)
    assert ours[0].dtype == jnp.float32
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(ours[1:]))
    expected = _xlas_derivatives(stride, padding)((x, k), (x, k))
    _assert_close(jax.tree.map(lambda a: a.astype(np.float32), ours), expected, rtol=0.05)


def test_bfloat16_is_near_float32_to_the_second_derivative():
    images, kernel, stride, padding = PACKED[0][0]
    point, direction = _draw(images, kernel)
    exact = _xlas_derivatives(stride, padding)(point, direction)
    lowered = _derivatives(
        lambda x, k: conv2d(x, k, stride=stride, padding=padding, dtype=jnp.bfloat16)
    ).lower(point, direction)
    assert "stablehlo.convolution" not in lowered.as_text()
    _assert_close(lowered.compile()(point, direction), exact, rtol=0.05)


def test_words_hold_what_numpy_rounds_to_bfloat16():
    edges = np.float32([0, -0.0, 1e-40, 3.4e38, np.inf, -np.inf, np.nan, 1 / 3])
    ties = np.arange(0x3F80_0000, 0x3F81_8000, 0x800, dtype=np.uint32)  # and what is around them
    low_nan = np.array([0x7F80_0001, 0xFFFF_FFFF], np.uint32)  # whose upper half alone is none
    bits = np.concatenate([edges.view(np.uint32), ties, low_nan, low_nan ^ 0x3000_0000])
    x = bits.view(np.float32).reshape(-1, 5).T
    with np.errstate(invalid="ignore"):
        expected = x.astype(jnp.bfloat16).astype(np.float32)
    turned = jax.jit(lambda x: packed.values(packed.turned(x)))(x.T)
    np.testing.assert_array_equal(turned.astype(np.float32), expected)
    halves = jax.jit(lambda x: packed.parted(packed.values(packed.of_halves(x)), 1))(x)
    np.testing.assert_array_equal(halves.astype(np.float32), expected)


def test_a_meta_gradient_through_checkpoint_scan_and_vmap_equals_xlas():
    """Descends on the kernel inside; differentiates the result for images and kernel outside."""
    (x, k), (y, k2) = _draw((2, 6, 6, 3), (3, 3, 3))
    kernels = np.stack([k, k2])

    def meta_loss(convolve, wrap, loop, point):
        def inner(k, x):
            return k - 0.01 * jax.grad(lambda k: jnp.mean(jnp.tanh(convolve(x, k)) ** 2))(k)

        def descended(k):
            return jnp.sum(convolve(y, loop(wrap(inner), k, jnp.stack([point[0], y]))) ** 2)

        return jnp.sum(jax.vmap(descended)(point[1]))

    def scanned(step, k, xs):
        return jax.lax.scan(lambda k, x: (step(k, x), None), k, xs)[0]

    def unrolled(step, k, xs):
        return step(step(k, xs[0]), xs[1])

    ours = jax.jit(jax.grad(lambda p: meta_loss(conv2d, jax.checkpoint, scanned, p)))
    xlas = jax.jit(
        jax.grad(lambda p: meta_loss(lambda x, k: _xla(x, k, 1, "SAME"), lambda f: f, unrolled, p))
    )
    _assert_close(ours((x, kernels)), xlas((x, kernels)), rtol=1e-5)


def test_xlas_own_convolution_on_request():
    x, k = _draw((1, 5, 5, 2), (3, 3, 2), 1)[0]
    asked = jax.make_jaxpr(lambda x, k: conv2d(x, k, xla=True))(x, k)
    assert [str(e.primitive) for e in asked.eqns] == ["conv_general_dilated"]


def test_padding_must_be_known():
    with pytest.raises(ValueError, match="`padding` is 'FULL'"):
        conv2d(jnp.zeros((1, 4, 4, 1)), jnp.zeros((3, 3, 1, 1)), padding="FULL")


def test_the_compilers_options_keep_barriers_and_change_no_result():
    x, layers = np.ones((2, 12, 12, 1), np.float32), _draw_layers(1, CHAINS[0][1])
    plain = jax.jit(conv_pool_relu).lower(x, layers).compile()
    ours = jax.jit(conv_pool_relu, compiler_options=compiler_options()).lower(x, layers).compile()
    assert ("opt-barrier(" in ours.as_text()) == (jax.default_backend() == "cpu")
    assert "opt-barrier(" not in plain.as_text()
    np.testing.assert_allclose(ours(x, layers), plain(x, layers), rtol=1e-5, atol=1e-5)
