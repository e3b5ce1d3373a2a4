"""How a convolution is computed: one place, chosen by backend and shape.

XLA's convolution runs near a CPU's peak forwards, and so does its gradient for the input, a
convolution too. Its gradient for the kernel is up to a hundred times slower there, worst inside a
loop, and a meta-gradient asks for gradients of gradients of it; and images smaller than the kernel,
as deep networks come to, leave its fast path. A convolution is linear in its
input x, its kernel k and the direction y it is observed from, so three functions suffice:

    forward(x, k) -> y      backward(y, k) -> x      correlate(x, y) -> k

and the derivative of each is made of the other two. On a CPU they are operations of their own, so
that all orders of differentiation, forwards and in reverse, stay within these three; `correlate` is
a handful of matrix products, and so are the others where images are small or have few channels, or
where bfloat16 is asked for, which XLA's convolution computes as float32; few features are computed
for several pixels at once, see `convolution.narrow`. Accelerators keep XLA's own.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gxdistill import _check
from gxdistill.convolution import blocks, narrow, packed, tiles
from gxdistill.convolution.pooling import max_pool
from gxdistill.runtime import platform

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 4  # Up to here a row of pixels is the longer contiguous run than its channels.
_CACHED = 2**18  # Values that a CPU core's cache holds beside all else.
_GATHERED = 2**22  # bfloat16 values that are gathered at once: what caches that cores share hold.
_FAR_SMALLER = 5  # Times; from here on, less work with products makes up for scattering them.
_MANY_CHANNELS = 16  # From here on, products are more work than gathering what they are of.


class _Geometry(NamedTuple):
    """Static facts of one convolution.

    Attributes:
      height: of an image.
      width: of an image.
      kernel_height: taps along the height.
      kernel_width: taps along the width.
      stride: step in pixels.
      pads: as ((top, bottom), (left, right)).
      halves: takes products of bfloat16, where that is faster; operands and sums are float32.
    """

    height: int
    width: int
    kernel_height: int
    kernel_width: int
    stride: int
    pads: tuple[tuple[int, int], tuple[int, int]]
    halves: bool = False

    @property
    def taps(self) -> int:
        return self.kernel_height * self.kernel_width

    @property
    def outputs(self) -> tuple[int, int]:
        tall = self.height + sum(self.pads[0]) - self.kernel_height
        wide = self.width + sum(self.pads[1]) - self.kernel_width
        return tall // self.stride + 1, wide // self.stride + 1

    @property
    def small(self) -> bool:
        """Whether the kernel is larger than the images."""
        return self.height < self.kernel_height or self.width < self.kernel_width

    @property
    def backward(self) -> "_Geometry":
        """Of the turned kernel over the outputs, `stride - 1` zeros between them.

        It is padded so that the kernel meets every input once.
        """
        tall, wide = ((count - 1) * self.stride + 1 for count in self.outputs)

        def pads(size: int, taps: int, before: int, dilated: int) -> tuple[int, int]:
            first = taps - 1 - before
            return first, size + taps - 1 - dilated - first

        around = (
            pads(self.height, self.kernel_height, self.pads[0][0], tall),
            pads(self.width, self.kernel_width, self.pads[1][0], wide),
        )
        return _Geometry(tall, wide, self.kernel_height, self.kernel_width, 1, around, self.halves)

    def packs(self, channels: int, features: int) -> bool:
        """Whether images of so many channels are worth packing as bfloat16 for a product."""
        return self.halves and channels % 2 == 0 and min(channels, features) >= _MANY_CHANNELS


def _plain(x: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    stride = (geometry.stride, geometry.stride)
    return jax.lax.conv_general_dilated(x, k, stride, geometry.pads, dimension_numbers=_LAYOUT)


def _convolved(x: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    if geometry.packs(*k.shape[2:]):
        return _packed_product(x, k, geometry)
    if geometry.small:
        return _one_product(x, k, geometry)
    return narrow.convolve(x, k, stride=geometry.stride, pads=geometry.pads)


def _turned(y: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    if _FAR_SMALLER * geometry.taps * k.shape[2] <= k.shape[3]:
        return _scattered(y, k, geometry)
    # XLA would fold the transposition into the convolution, and then leaves its fast path.
    turned = jax.lax.optimization_barrier(k[::-1, ::-1].swapaxes(2, 3))
    stride, back = geometry.stride, geometry.backward
    if stride == 1 and back.packs(*turned.shape[2:]):
        return _packed_product(y, turned, back)
    if back.small:
        between = [(0, 0, 0), *[(0, 0, stride - 1)] * 2, (0, 0, 0)]
        return _one_product(jax.lax.pad(y, jnp.zeros((), y.dtype), between), turned, back)
    return narrow.convolve(y, turned, stride=1, pads=back.pads, apart=stride)


def _products(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    if geometry.packs(x.shape[3], y.shape[3]):
        pixels = _at_once(x, geometry) * math.prod(geometry.outputs)
        if pixels % 2 == 0:  # which are the ones that are paired
            return _correlate_packed(x, y, geometry)
    if x.shape[3] <= _FEW_CHANNELS:
        return _correlate_rows(x, y, geometry)
    gathered = geometry.taps * x.shape[3]
    if len(y) * math.prod(geometry.outputs) * gathered <= _CACHED:
        return _correlate_together(x, y, geometry)
    if geometry.taps > 1 and (rows := blocks.rows_at_once(geometry.outputs, gathered)):
        size = geometry.kernel_height, geometry.kernel_width
        stride, pads = geometry.stride, geometry.pads
        return blocks.correlate(x, y, size, stride=stride, pads=pads, rows=rows)
    return _correlate_taps(x, y, geometry)


def _taps(padded: jax.Array, geometry: _Geometry, first_axis: int) -> list[jax.Array]:
    """Slices the pixels that each tap of the kernel meets; height and width from `first_axis`."""
    stride, (tall, wide) = geometry.stride, geometry.outputs
    slices = []
    for i in range(geometry.kernel_height):
        for j in range(geometry.kernel_width):
            rows = slice(i, i + (tall - 1) * stride + 1, stride)
            cols = slice(j, j + (wide - 1) * stride + 1, stride)
            slices.append(padded[(slice(None),) * first_axis + (rows, cols)])
    return slices


def _gathered(x: jax.Array, geometry: _Geometry) -> jax.Array:
    """Puts side by side what the taps meet: `[N * outputs, taps * Ci]`."""
    padded = jnp.pad(x, ((0, 0), *geometry.pads, (0, 0)))
    return jnp.concatenate(_taps(padded, geometry, 1), -1).reshape(-1, geometry.taps * x.shape[3])


def _one_product(x: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    """Convolves by one product over gathered taps: up to a hundred times faster on small images."""
    product = _gathered(x, geometry) @ k.reshape(-1, k.shape[3])
    return product.reshape(len(x), *geometry.outputs, k.shape[3])


def _scattered(y: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    """Takes the product first and adds up where its taps fall, right where it is far smaller."""
    (high, broad, channels, features), stride = k.shape, geometry.stride
    product = y.reshape(-1, features) @ k.transpose(3, 0, 1, 2).reshape(features, -1)
    product = product.reshape(len(y), *geometry.outputs, high, broad, channels)
    product = jax.lax.optimization_barrier(product.transpose(3, 4, 0, 1, 2, 5))

    def around(at: int, size: int, pad: int, count: int) -> tuple[int, int, int]:
        return at - pad, size + pad - at - (count - 1) * stride - 1, stride - 1

    total = jnp.zeros((len(y), geometry.height, geometry.width, channels), y.dtype)
    (top, _), (left, _) = geometry.pads
    for i, j in np.ndindex(high, broad):
        rows = around(i, geometry.height, top, geometry.outputs[0])
        cols = around(j, geometry.width, left, geometry.outputs[1])
        placed = ((0, 0, 0), rows, cols, (0, 0, 0))
        total += jax.lax.pad(product[i, j], jnp.zeros((), y.dtype), placed)
    return total


def _kernel_shape(x: jax.Array, y: jax.Array, geometry: _Geometry) -> tuple[int, ...]:
    return (geometry.kernel_height, geometry.kernel_width, x.shape[3], y.shape[3])


def _correlate_together(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    """One product in all, over taps gathered side by side, right for small batches."""
    product = _gathered(x, geometry).T @ y.reshape(-1, y.shape[3])
    return product.reshape(_kernel_shape(x, y, geometry))


def _at_once(x: jax.Array, geometry: _Geometry) -> int:
    """Counts the images of which the taps fit into a cache; a divisor of their number."""
    each = math.prod(geometry.outputs) * geometry.taps * x.shape[3]
    most = max(1, min(len(x), _GATHERED // each))
    return next(count for count in range(most, 0, -1) if len(x) % count == 0)


def _parts(x: jax.Array, geometry: _Geometry) -> jax.Array:
    """Parts a batch in as many images as are gathered at once."""
    return x.reshape(-1, _at_once(x, geometry), *x.shape[1:])


def _gathered_words(x: jax.Array, geometry: _Geometry) -> jax.Array:
    """Rounds to bfloat16 what the taps meet: as `_gathered`, each tap's channels interleaved."""
    # Fused, rounding would be done once a tap, and reading the words would copy values.
    words = jax.lax.optimization_barrier(packed.of_halves(x))
    return packed.values(jax.lax.optimization_barrier(_gathered(words, geometry)))


def _packed_product(x: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    """Convolves by a product of bfloat16, summed in float32."""
    rows = packed.interleaved(k, 2).astype(jnp.bfloat16).reshape(-1, k.shape[3])
    rows = jax.lax.optimization_barrier(rows)

    def product(part: jax.Array) -> jax.Array:
        gathered = _gathered_words(part, geometry)
        return jnp.matmul(gathered, rows, preferred_element_type=jnp.float32)

    return jax.lax.map(product, _parts(x, geometry)).reshape(len(x), *geometry.outputs, k.shape[3])


def _correlate_packed(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    """Products of bfloat16, summed in float32; what is turned is the smaller operand."""
    channels, features = x.shape[3], y.shape[3]

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, y = part
        turned = packed.values(jax.lax.optimization_barrier(packed.turned(y)))
        gathered = _gathered_words(x, geometry)
        return total + jnp.matmul(turned, gathered, preferred_element_type=jnp.float32), None

    parts = _parts(x, geometry)
    zeros = jnp.zeros((features, geometry.taps * channels), jnp.float32)
    total, _ = jax.lax.scan(add, zeros, (parts, y.reshape(len(parts), -1, features)))
    # XLA would fold the transposition into the product, and then has none of bfloat16.
    total = jax.lax.optimization_barrier(total).T
    return packed.parted(total.reshape(_kernel_shape(x, y, geometry)), 2)


def _correlate_taps(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    """One product a tap: no copy of the taps side by side, right for many channels."""
    channels, features = x.shape[3], y.shape[3]
    padded = jnp.pad(x, ((0, 0), *geometry.pads, (0, 0)))
    flat = y.reshape(-1, features)
    products = [tap.reshape(-1, channels).T @ flat for tap in _taps(padded, geometry, 1)]
    return jnp.stack(products).reshape(_kernel_shape(x, y, geometry))


def _correlate_rows(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    """One product in all, over taps gathered with the channels first, right for few channels."""
    padded = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), *geometry.pads))
    gathered = jnp.stack(_taps(padded, geometry, 2))
    product = gathered.reshape(geometry.taps * x.shape[3], -1) @ y.reshape(-1, y.shape[3])
    return product.reshape(_kernel_shape(x, y, geometry))


def _primitive(name: str, compute: Callable[..., jax.Array]) -> Primitive:
    """Makes a function of two arrays and a geometry one operation, which JAX does not look into."""
    primitive = Primitive(f"gxdistill_{name}")

    def shaped(a: ShapedArray, b: ShapedArray, *, geometry: _Geometry) -> ShapedArray:
        out = jax.eval_shape(functools.partial(compute, geometry=geometry), a, b)
        return ShapedArray(out.shape, out.dtype)

    def mapped(
        operands: Sequence[jax.Array], axes: Sequence[int | None], *, geometry: _Geometry
    ) -> tuple[jax.Array, int]:
        # One after another: side by side they would be a grouped convolution, slow on a CPU.
        size = next(x.shape[at] for x, at in zip(operands, axes, strict=True) if at is not None)
        pair = (batching.bdim_at_front(x, at, size) for x, at in zip(operands, axes, strict=True))
        return jax.lax.map(lambda pair: primitive.bind(*pair, geometry=geometry), tuple(pair)), 0

    primitive.def_abstract_eval(shaped)
    primitive.def_impl(jax.jit(compute, static_argnames="geometry"))
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[primitive] = mapped
    return primitive


_forward = _primitive("forward", _convolved)
_backward = _primitive("backward", _turned)
_correlate = _primitive("correlate", _products)

# The cotangent of each result, for one operand given the other; an unknown operand is not read.
ad.defbilinear(
    _forward,
    lambda y, _, k, geometry: _backward.bind(y, k, geometry=geometry),
    lambda y, x, _, geometry: _correlate.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    _backward,
    lambda x, _, k, geometry: _forward.bind(x, k, geometry=geometry),
    lambda x, y, _, geometry: _correlate.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    _correlate,
    lambda k, _, y, geometry: _backward.bind(y, k, geometry=geometry),
    lambda k, x, _, geometry: _forward.bind(x, k, geometry=geometry),
)


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: str = "SAME",
    dtype: jnp.dtype | None = None,
    xla: bool = False,
) -> jax.Array:
    """Convolves images with a kernel (cross-correlation, as the field says "convolution").

    Differentiable in both modes to any order. On a CPU the products named in the module's text are
    used, elsewhere `jax.lax.conv_general_dilated` with its own gradients.

    Args:
      x: `[N, H, W, Ci]` float.
      kernel: `[h, w, Ci, Co]` float.
      stride: step in pixels, the same along both axes.
      padding: "SAME" or "VALID".
      dtype: in which products are computed; by default that of `x`.
      xla: takes XLA's own convolution on a CPU too.

    Returns:
      `[N, H', W', Co]` in `dtype`; on a CPU, where nothing but products is faster in bfloat16, in
      float32 at least.

    Raises:
      ValueError: `padding` is unknown.
    """
    _check.one_of("padding", padding, ("SAME", "VALID"))
    dtype = x.dtype if dtype is None else dtype
    ours = not xla and platform.platform() == "cpu"
    kept = jnp.promote_types(dtype, jnp.float32) if ours else dtype
    x, kernel = x.astype(kept), kernel.astype(kept)
    pads = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    (_, tall, wide, _), (high, broad, _, _) = x.shape, kernel.shape
    halves = dtype == jnp.bfloat16
    geometry = _Geometry(tall, wide, high, broad, stride, (pads[0], pads[1]), halves)
    if not ours:
        return _plain(x, kernel, geometry)
    y: jax.Array = _forward.bind(x, kernel, geometry=geometry)
    return y


def conv_pool_relu(
    x: jax.Array, layers: Sequence[tuple[jax.Array, jax.Array]], *, xla: bool = False
) -> jax.Array:
    """Convolves, takes the maximum of 2 x 2 pixels, adds the bias and rectifies, layer by layer.

    Differentiable in both modes to any order. For few channels: on a CPU the layers are computed
    over tiles, see `models.tiles`.

    Args:
      x: `[N, H, W, C]`, in the type in which products are computed; they are summed in float32 at
        least.
      layers: kernels `[k, k, Ci, Co]`, k odd, and biases `[Co]`. The first layer keeps the size of
        the images ("SAME"), later ones take whole neighbourhoods only ("VALID").
      xla: takes XLA's own convolution on a CPU too.

    Returns:
      `[N, h, w, Co]`, float32 at least.
    """
    if not xla and platform.platform() == "cpu":
        return tiles.conv_pool_relu(x, layers, before=len(layers[0][0]) // 2)
    dtype, padding = x.dtype, "SAME"
    summed = jnp.promote_types(dtype, jnp.float32)
    for kernel, bias in layers:
        y = conv2d(x, kernel, padding=padding, dtype=dtype, xla=True)
        x, padding = jax.nn.relu(max_pool(y.astype(summed)) + bias), "VALID"
    return x


def compiler_options() -> dict[str, str | int]:
    """Options for `jax.jit` of whole programs; none on accelerators.

    On a CPU XLA drops optimisation barriers before it fuses, so that each copy of pixels computes
    again what it copies, element by element: a quarter of an inner step. The time goes into matrix
    products that are compiled beforehand, so that LLVM's first level of optimisation gives programs
    as fast as its last one, in 60% of the time.
    """
    if platform.platform() != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander", "xla_backend_optimization_level": 1}
