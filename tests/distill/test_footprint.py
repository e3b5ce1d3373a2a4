import jax
import jax.numpy as jnp

from gxdistill.distill import footprint

X = jax.ShapeDtypeStruct((1000,), jnp.float32)


def test_a_size_is_that_of_all_leaves():
    assert footprint.size({"a": X, "b": (jnp.zeros(3, jnp.int8), X)}) == 4000 + 3 + 4000


def test_outputs_that_do_not_depend_on_the_arguments_count_nothing():
    constant = jnp.arange(500.0)
    assert footprint.outputs(lambda x: (x + 1, jnp.zeros(1000), constant, 2.0), X) == 4000
    assert footprint.outputs(lambda x: (x, x), X) == 4000  # one array


def test_the_peak_is_what_is_alive_at_once():
    def chain(x):  # each is needed for the next one alone
        return jnp.sin(jnp.sin(jnp.sin(x)))

    def fan(x):  # three are needed at the end
        a = jnp.sin(x)
        b = jnp.cos(x)
        return a + b * a

    assert footprint.peak(chain, X) == 2 * 4000
    assert footprint.peak(fan, X) == 3 * 4000
    assert footprint.peak(lambda x: jnp.sum(chain(x)), X) == 2 * 4000


def test_the_peak_within_a_called_function_counts():
    def inner(x):
        return jnp.sum(jnp.outer(x, x))  # a million entries

    assert footprint.peak(lambda x: jax.jit(inner)(x) + jnp.sum(x), X) >= 4 * 10**6
    loop = lambda x: jax.lax.scan(lambda c, _: (c + inner(c) * c, None), x, None, length=3)[0]
    assert 4 * 10**6 <= footprint.peak(loop, X) < 5 * 10**6
