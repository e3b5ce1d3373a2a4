"""Essential weights: what of trained weights their seed does not tell, in few bytes.

Trained weights are their start, which a seed draws anew, and a difference to it. The difference is
rounded to whole multiples of a step, so that most of it is 0: pruned; the gaps between what is left
and the multiples are entropy-coded. Han et al. 2015, https://arxiv.org/abs/1510.00149, code the
weights themselves so. Or the weights are the end of a replay: then seed and distilled data tell all
of them, and a `proof` tells whether they did.
"""

import hashlib
import lzma
import math
import struct
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.pytrees import Network, Params

_PROBES = 8
_BIASES = 127  # Multiples of a step that the largest value of a bias or a scale takes.
_LARGEST = 2**15  # Multiple of a step.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]
_HEAD = struct.Struct("<5L")  # Numbers of leaves, weights and codes; bytes of both streams.


class Codes(NamedTuple):
    """A difference as multiples of a step.

    Attributes:
      steps: `[n_leaves]` float32, above 0.
      values: for each leaf, in the order of `jax.tree.leaves`, int32 of its shape.
    """

    steps: np.ndarray
    values: list[np.ndarray]


def difference(trained: Params, start: Params) -> Params:
    """Returns trained - start."""
    return jax.tree.map(jnp.subtract, trained, start)


def threshold(delta: Params, share: float) -> float:
    """Returns the step at which that share of the kernels' values is not rounded to 0."""
    flat = np.concatenate([np.abs(leaf).ravel() for leaf in _kernels(delta)])
    rank = min(len(flat) - 1, int(len(flat) * (1 - share)))
    return max(2 * float(np.partition(flat, rank)[rank]), 1e-30)


def _kernels(tree: Params) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]


def steps_of(delta: Params, step: float) -> np.ndarray:
    """Returns the step of each leaf: `step` for kernels, a fine one for biases and scales.

    Args:
      delta: trained - start.
      step: of the kernels.
    """

    def one(leaf: Any) -> float:
        fine = float(np.abs(leaf).max(initial=0)) / _BIASES
        return step if leaf.ndim > 1 else max(fine, 1e-30)

    return np.array([one(leaf) for leaf in jax.tree.leaves(delta)], np.float32)


def rounded(delta: Params, steps: np.ndarray) -> Params:
    """Rounds a difference to multiples of its steps; the gradient passes as if nothing was.

    The straight-through estimator, Bengio et al. 2013, https://arxiv.org/abs/1308.3432.
    """
    leaves, tree = jax.tree.flatten(delta)
    near = [step * jnp.rint(leaf / step) for leaf, step in zip(leaves, steps, strict=True)]
    pairs = zip(leaves, near, strict=True)
    return jax.tree.unflatten(tree, [x + jax.lax.stop_gradient(r - x) for x, r in pairs])


def codes(delta: Params, steps: np.ndarray) -> Codes:
    """Codes a difference, with the multiples that `rounded` finds."""
    leaves = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(delta)]
    values = [np.rint(leaf / step) for leaf, step in zip(leaves, steps, strict=True)]
    return Codes(steps, [np.clip(v, -_LARGEST, _LARGEST).astype(np.int32) for v in values])


def restored(start: Params, coded: Codes) -> Params:
    """Returns start + step * code, in float32, the product and the sum each rounded."""
    leaves, tree = jax.tree.flatten(start)
    moved = [
        np.asarray(leaf, np.float32) + step * value.astype(np.float32)
        for leaf, step, value in zip(leaves, coded.steps, coded.values, strict=True)
    ]
    return jax.tree.unflatten(tree, [jnp.asarray(leaf) for leaf in moved])


def _to_bytes(numbers: np.ndarray) -> bytes:
    """Writes whole numbers >= 0: 255 as often as it fits, then the rest."""
    fulls = numbers // 255
    stream = np.full(int(fulls.sum()) + len(numbers), 255, np.uint8)
    stream[np.cumsum(fulls + 1) - 1] = numbers % 255
    return stream.tobytes()


def _from_bytes(stream: bytes, count: int) -> np.ndarray:
    content = np.frombuffer(stream, np.uint8)
    ends = np.flatnonzero(content != 255)
    if len(ends) != count or (len(content) and content[-1] == 255):
        raise ValueError("the codes are not as many as declared")
    return 255 * (np.diff(ends, prepend=-1) - 1) + content[ends].astype(np.int64)


def pack(coded: Codes) -> bytes:
    """Writes codes: the number of zeros before each other one, and these, by LZMA."""
    flat = np.concatenate([value.ravel() for value in coded.values]).astype(np.int64)
    (places,) = flat.nonzero()
    found = flat[places]
    gaps = np.diff(places, prepend=-1) - 1
    folded = 2 * np.abs(found) - 1 - (found > 0)  # 1, -1, 2, -2: 0, 1, 2, 3
    streams = [
        lzma.compress(_to_bytes(part), lzma.FORMAT_RAW, filters=_FILTERS) for part in (gaps, folded)
    ]
    head = _HEAD.pack(len(coded.steps), len(flat), len(places), *map(len, streams))
    return head + coded.steps.astype("<f4").tobytes() + b"".join(streams)


def _unpacked(stream: bytes, most: int) -> bytes:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    content = decoder.decompress(stream, most + 1)
    if len(content) > most or not decoder.eof or decoder.unused_data:
        raise ValueError("a stream is longer or shorter than its codes can be")
    return content


def unpack(content: bytes, like: Params) -> Codes:
    """Reads what `pack` wrote, also a stranger's: nothing larger than `like` is allocated.

    Args:
      content: the bytes.
      like: weights of the network, of which shapes suffice.

    Raises:
      ValueError: these are no codes of this network.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(like)]
    total = sum(map(math.prod, shapes))
    try:
        leaves, weights, count, *sizes = _HEAD.unpack_from(content)
        start = _HEAD.size + 4 * leaves
        sound = (leaves, weights) == (len(shapes), total) and count <= total
        if not sound or start + sum(sizes) != len(content):
            raise ValueError("the codes are not of this network")
        steps = np.frombuffer(content[_HEAD.size : start], "<f4").astype(np.float32)
        most = count + total // 255, count * (1 + 2 * _LARGEST // 255)
        gaps, folded = (
            _from_bytes(_unpacked(stream, size), count)
            for stream, size in zip(_split(content[start:], sizes[0]), most, strict=True)
        )
    except (lzma.LZMAError, struct.error) as error:
        raise ValueError(f"the codes are damaged: {error}") from error
    places = np.cumsum(gaps + 1) - 1
    if not (np.isfinite(steps).all() and (steps > 0).all()) or (count and places[-1] >= total):
        raise ValueError("the codes lie outside the network's weights, or a step is no number > 0")
    flat = np.zeros(total, np.int32)
    flat[places] = np.where(folded % 2, -1, 1) * (folded // 2 + 1)
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = zip(np.split(flat, ends), shapes, strict=True)
    return Codes(steps, [part.reshape(shape) for part, shape in parts])


def _split(content: bytes, at: int) -> tuple[bytes, bytes]:
    return content[:at], content[at:]


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
