import jax
import jax.numpy as jnp
import pytest

from gxdistill.distill import operations


def _products(fun, *shapes, unknown=1.0):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return operations.products(jax.make_jaxpr(fun)(*arguments).jaxpr, unknown)


def test_products_are_counted_as_the_textbook_does():
    assert _products(lambda a, b: a @ b, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    batched = _products(lambda a, b: jnp.einsum("nij,njk->nik", a, b), (4, 3, 5), (4, 5, 7))
    assert batched == 4 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients_cost_the_same(stride):
    def conv(x, k):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, k, (stride, stride), "VALID", dimension_numbers=numbers
        )

    side = (9 - 3) // stride + 1
    once = 2 * 2 * side * side * 3 * 3 * 4 * 6  # images, outputs, taps, channels, features
    assert _products(conv, (2, 9, 9, 4), (3, 3, 4, 6)) == once
    gradients = jax.grad(lambda x, k: jnp.sum(conv(x, k) ** 2), (0, 1))
    both = _products(gradients, (2, 9, 9, 4), (3, 3, 4, 6))
    # Gradients take the outputs' zeros at the border along: a little more than three times.
    assert 3 * once <= both <= 6 * once


def test_loops_count_as_often_as_they_run():
    def scanned(a):
        return jax.lax.scan(lambda x, _: (x @ x, None), a, None, length=11)[0]

    def drawn(a, count):
        return jax.lax.fori_loop(0, jnp.int32(count), lambda _, x: x @ x, a)

    once = 2 * 4**3
    assert _products(scanned, (4, 4)) == 11 * once
    assert _products(drawn, (4, 4), (), unknown=5.0) == 5 * once
    assert _products(jax.jit(jax.checkpoint(scanned)), (4, 4)) == 11 * once
