"""Essential weights: what of trained weights their seed does not tell, in few bytes.

Trained weights are their start, which a seed draws anew, and a difference to it. The difference is
trained to lie where few numbers tell it: a value moves many weights of a leaf, each up or down by a
fixed draw of signs. That such a random subspace of few dimensions holds good solutions was seen by
Li et al. 2018, https://arxiv.org/abs/1804.08838; values shared by a draw are from Chen et al. 2015,
https://arxiv.org/abs/1504.04788. Values are whole multiples of a step, and entropy-coded. Or the
weights are the end of a replay: then seed and distilled data tell all of them, and a `proof` tells
whether they did.
"""

import hashlib
import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.package import range_coder
from gxdistill.pytrees import Network, Params

STEP = 0.5  # Of values; they are trained at rates at which their size is some of these.
_PROBES = 8
_MOST = 2**17  # Values: a stranger's are read in seconds.
_OF_VECTORS = 1 / 16  # How far a value moves a bias or a scale.
_HEAD = struct.Struct("<2L")  # Fineness and number of values.


class Codes(NamedTuple):
    """A difference in few numbers.

    Attributes:
      fineness: how many values a leaf has, see `counts`.
      values: multiples of `STEP`, `[sum(counts)]` int32.
    """

    fineness: int
    values: np.ndarray


def counts(like: Params, fineness: int) -> list[int]:
    """Counts the values of each leaf: the root of fineness * n for n weights, n at most.

    Small leaves, which many paths go through, thus have more values for their size.
    """
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(like)]
    return [min(size, math.isqrt(fineness * size)) for size in sizes]


def fineness_of(like: Params, share: float) -> int:
    """Returns the largest fineness with at most `share` values for each weight; 1 at least."""
    most = min(_MOST, int(share * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(like))))
    low, high = 1, 2**31
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(counts(like, middle)) <= most else (low, middle)
    return low


def factors(like: Params) -> Params:
    """Draws how far a value of 1 moves each weight, up or down, in float32.

    1 / sqrt(n) for the kernel of a neuron that sees n values, about the size of its start.
    """
    leaves, tree = jax.tree.flatten(like)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    drawn = hashlib.shake_256(b"gxdistill signs").digest(-(-sum(sizes) // 8))
    down = np.unpackbits(np.frombuffer(drawn, np.uint8))[: sum(sizes)].astype(bool)
    each = np.split(down, np.cumsum(sizes)[:-1])

    def factor(shape: Sequence[int], down: np.ndarray) -> np.ndarray:
        far = np.float32(math.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else _OF_VECTORS)
        return np.where(down, -far, far).reshape(shape)

    shapes = [leaf.shape for leaf in leaves]
    return jax.tree.unflatten(tree, map(factor, shapes, each))


def moved(start: Params, factors: Params, values: jax.Array, fineness: int) -> Params:
    """Moves weights by values: weight i of a leaf by its factor times value i mod k of the leaf's.

    Args:
      start: the weights to start from.
      factors: from `factors`.
      values: `[sum(counts)]`.
      fineness: see `counts`.
    """
    numbers = counts(start, fineness)
    parts = jnp.split(values, np.cumsum(numbers)[:-1])
    leaves, tree = jax.tree.flatten(start)

    def move(leaf: jax.Array, factor: jax.Array, part: jax.Array) -> jax.Array:
        if not len(part):
            return leaf
        shared = jnp.tile(part, -(-leaf.size // len(part)))[: leaf.size]
        return leaf + factor * shared.reshape(leaf.shape)

    return jax.tree.unflatten(tree, map(move, leaves, jax.tree.leaves(factors), parts))


def round_values(values: jax.Array) -> jax.Array:
    """Rounds to multiples of `STEP` that can be coded; the gradient passes as if nothing was.

    The straight-through estimator, Bengio et al. 2013, https://arxiv.org/abs/1308.3432.
    """
    most = STEP * range_coder.LARGEST
    near = jnp.clip(STEP * jnp.rint(values / STEP), -most, most)
    return values + jax.lax.stop_gradient(near - values)


def codes(values: jax.Array, fineness: int) -> Codes:
    """Codes values, with the multiples that `round_values` finds."""
    return Codes(fineness, np.rint(np.asarray(round_values(values)) / STEP).astype(np.int32))


def restored(start: Params, coded: Codes) -> Params:
    """Returns start + factor * (`STEP` * code), in float32, each product and the sum rounded."""
    values = np.float32(STEP) * coded.values.astype(np.float32)
    numbers = counts(start, coded.fineness)
    parts = np.split(values, np.cumsum(numbers)[:-1])
    leaves, tree = jax.tree.flatten(start)
    factor = jax.tree.leaves(factors(start))

    def restore(leaf: jax.Array, factor: np.ndarray, part: np.ndarray) -> jax.Array:
        shared = np.resize(part, leaf.shape)  # Repeated; zeros where there is none.
        return jnp.asarray(np.asarray(leaf, np.float32) + factor * shared)

    return jax.tree.unflatten(tree, map(restore, leaves, factor, parts))


def pack(coded: Codes) -> bytes:
    """Writes codes: the fineness, the number of values, and these by `range_coder`."""
    return _HEAD.pack(coded.fineness, len(coded.values)) + range_coder.encode(coded.values)


def unpack(content: bytes, like: Params) -> Codes:
    """Reads what `pack` wrote, also a stranger's: in seconds, and in the memory of 2^17 values.

    Args:
      content: the bytes.
      like: weights of the network, of which shapes suffice.

    Raises:
      ValueError: these are no codes of this network.
    """
    if len(content) < _HEAD.size:
        raise ValueError("the codes are cut short")
    fineness, number = _HEAD.unpack_from(content)
    if number > _MOST or number != sum(counts(like, fineness)):
        raise ValueError("the codes are not of this network")
    values = range_coder.decode(content[_HEAD.size :], number)
    coded = Codes(fineness, values)
    if pack(coded) != content:
        raise ValueError("the codes are followed by others, or cut short")
    return coded


def digest(params: Params) -> str:
    """SHA-256 of weights: of dtype, shape and bytes of each leaf, in the order of their names."""
    named = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    whole = hashlib.sha256()
    for name in sorted(named):
        array = named[name]
        whole.update(f"{array.dtype.name} {list(array.shape)}\n".encode() + array.tobytes())
    return whole.hexdigest()


def probes(shape: tuple[int, ...]) -> np.ndarray:
    """Makes the images that every replay is proven on: `[8, H, W, C]` float32 from -1 to 1."""
    size = _PROBES * math.prod(shape)
    content = hashlib.shake_256(b"gxdistill probe").digest(size)
    values = np.frombuffer(content, np.uint8).astype(np.float32) / np.float32(127.5)
    return (values - np.float32(1)).reshape(_PROBES, *shape)


def probe_logits(network: Network, params: Params, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the logits of the probe images, `[8, K]` float32."""
    return np.asarray(jax.jit(network.apply)(params, jnp.asarray(probes(shape))))
