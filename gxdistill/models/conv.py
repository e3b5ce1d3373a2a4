"""How a convolution is computed: one place, chosen by backend and shape.

XLA's convolution runs near a CPU's peak forwards, and so does its gradient for the input, a
convolution too. Its gradient for the kernel is up to a hundred times slower there, worst inside a
loop, and a meta-gradient asks for gradients of gradients of it; and images smaller than the kernel,
as deep networks come to, leave its fast path. A convolution is linear in its
input x, its kernel k and the direction y it is observed from, so three functions suffice:

    forward(x, k) -> y      backward(y, k) -> x      correlate(x, y) -> k

and the derivative of each is made of the other two. On a CPU they are operations of their own, so
that all orders of differentiation, forwards and in reverse, stay within these three; `correlate` is
a handful of matrix products, and so are the others where images are small. Accelerators keep XLA's
own.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gxdistill import _check, backend
from gxdistill.models import tiles
from gxdistill.models.pooling import max_pool

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 4  # Up to here a row of pixels is the longer contiguous run than its channels.
_CACHED = 2**18  # Values that a CPU core's cache holds beside all else.


class _Geometry(NamedTuple):
    """Static facts of one convolution: `pads` as ((top, bottom), (left, right))."""

    height: int
    width: int
    kernel_height: int
    kernel_width: int
    stride: int
    pads: tuple[tuple[int, int], tuple[int, int]]

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
        return _Geometry(tall, wide, self.kernel_height, self.kernel_width, 1, around)


def _plain(x: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    stride = (geometry.stride, geometry.stride)
    return jax.lax.conv_general_dilated(x, k, stride, geometry.pads, dimension_numbers=_LAYOUT)


def _convolved(x: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    return (_one_product if geometry.small else _plain)(x, k, geometry)


def _turned(y: jax.Array, k: jax.Array, geometry: _Geometry) -> jax.Array:
    # XLA would fold the transposition into the convolution, and then leaves its fast path.
    turned = jax.lax.optimization_barrier(k[::-1, ::-1].swapaxes(2, 3))
    stride, back = geometry.stride, geometry.backward
    if back.small:
        between = [(0, 0, 0), *[(0, 0, stride - 1)] * 2, (0, 0, 0)]
        return _one_product(jax.lax.pad(y, jnp.zeros((), y.dtype), between), turned, back)
    return jax.lax.conv_general_dilated(
        y,
        turned,
        (1, 1),
        back.pads,
        lhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )


def _products(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    if x.shape[3] <= _FEW_CHANNELS:
        return _correlate_rows(x, y, geometry)
    gathered = len(y) * math.prod(geometry.outputs) * geometry.taps * x.shape[3]
    return (_correlate_together if gathered <= _CACHED else _correlate_taps)(x, y, geometry)


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


def _correlate_together(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    """One product in all, over taps gathered side by side, right for small batches."""
    channels, features = x.shape[3], y.shape[3]
    product = _gathered(x, geometry).T @ y.reshape(-1, features)
    return product.reshape(geometry.kernel_height, geometry.kernel_width, channels, features)


def _correlate_taps(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    """One product a tap: no copy of the taps side by side, right for many channels."""
    channels, features = x.shape[3], y.shape[3]
    padded = jnp.pad(x, ((0, 0), *geometry.pads, (0, 0)))
    y = y.reshape(-1, features)
    products = [tap.reshape(-1, channels).T @ y for tap in _taps(padded, geometry, 1)]
    shape = (geometry.kernel_height, geometry.kernel_width, channels, features)
    return jnp.stack(products).reshape(shape)


def _correlate_rows(x: jax.Array, y: jax.Array, geometry: _Geometry) -> jax.Array:
    """One product in all, over taps gathered with the channels first, right for few channels."""
    channels, features = x.shape[3], y.shape[3]
    padded = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), *geometry.pads))
    gathered = jnp.stack(_taps(padded, geometry, 2))
    product = gathered.reshape(gathered.shape[0] * channels, -1) @ y.reshape(-1, features)
    return product.reshape(geometry.kernel_height, geometry.kernel_width, channels, features)


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
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: str = "SAME", xla: bool = False
) -> jax.Array:
    """Convolves images with a kernel (cross-correlation, as the field says "convolution").

    Differentiable in both modes to any order. On a CPU the products named in the module's text are
    used, elsewhere `jax.lax.conv_general_dilated` with its own gradients.

    Args:
      x: `[N, H, W, Ci]` float.
      kernel: `[h, w, Ci, Co]`, same dtype.
      stride: step in pixels, the same along both axes.
      padding: "SAME" or "VALID".
      xla: takes XLA's own convolution on a CPU too.

    Returns:
      `[N, H', W', Co]`, same dtype.

    Raises:
      ValueError: `padding` is unknown.
    """
    _check.one_of("padding", padding, ("SAME", "VALID"))
    pads = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    (_, tall, wide, _), (high, broad, _, _) = x.shape, kernel.shape
    geometry = _Geometry(tall, wide, high, broad, stride, (pads[0], pads[1]))
    if xla or backend.platform() != "cpu":
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
    if not xla and backend.platform() == "cpu":
        return tiles.conv_pool_relu(x, layers, before=len(layers[0][0]) // 2)
    dtype, padding = x.dtype, "SAME"
    summed = jnp.promote_types(dtype, jnp.float32)
    for kernel, bias in layers:
        y = conv2d(x.astype(dtype), kernel.astype(dtype), padding=padding, xla=True)
        x, padding = jax.nn.relu(max_pool(y.astype(summed)) + bias), "VALID"
    return x


def compiler_options() -> dict[str, str | int]:
    """Options for `jax.jit` of whole programs; none on accelerators.

    On a CPU XLA drops optimisation barriers before it fuses, so that each copy of pixels computes
    again what it copies, element by element: a quarter of an inner step. The time goes into matrix
    products that are compiled beforehand, so that LLVM's first level of optimisation gives programs
    as fast as its last one, in 60% of the time.
    """
    if backend.platform() != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander", "xla_backend_optimization_level": 1}
