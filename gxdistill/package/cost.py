"""What a stranger's package would cost before anything of it is run: bytes and operations.

Counted from the manifest and from the traced network, in which nothing is computed or allocated.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gxdistill.distill import footprint, operations, replay
from gxdistill.distill.losses import inner_loss
from gxdistill.package.fields import About, Manifest, PatchGeometry
from gxdistill.pytrees import Network

# What counts no products, as drawing, updating and reading, in operations of products.
_OF_STEP, _OF_PATCH, _OF_WEIGHT = 1e6, 1e3, 20
_SCRATCH = 2  # Times what is alive: the most that a CPU's convolutions took beside it.
_OF_PIXEL = 256  # Bytes: of a heat map, and of the maps of a network that sees whole images.
_OF_FILE_PIXEL = 16  # Bytes of a pixel of a file, while it is read.
FORWARD_BYTES = 12 << 20  # Of the largest array in one forward pass: a CPU's cache holds it.


class Cost(NamedTuple):
    """What something takes.

    Attributes:
      memory: bytes at once.
      operations: floating-point operations.
    """

    memory: float
    operations: float

    def then(self, other: "Cost") -> "Cost":
        """Adds what is done afterwards."""
        return Cost(max(self.memory, other.memory), self.operations + other.operations)


def of_training(about: Manifest, network: Network, count: int, *, ordinary: bool = False) -> Cost:
    """Counts what training fresh networks on a package takes.

    Args:
      about: the package's manifest.
      network: that is trained.
      count: R, number of networks.
      ordinary: as `distill.replay.ordinary` trains, instead of a replay.
    """
    loop = about.distillation
    per_step = loop.images_per_step
    steps = loop.steps * loop.epochs
    if ordinary:
        per_step = replay.batch_of(loop.steps * loop.images_per_step)
        steps = replay.STEPS
    params = jax.eval_shape(network.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((per_step, *about.patch.shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((per_step, len(about.class_names)), jnp.float32)
    step = jax.make_jaxpr(jax.grad(inner_loss(network, loop.label_rule)))(params, images, labels)
    weights = footprint.size(params)
    # The images as they lie in the file's arrays, as float32, and of ordinary training brought to
    # one scale. Weights: start, now, gradient, two moments; and of each network twice.
    data = (3 if ordinary else 2) * 4 * math.prod(about.images_shape)
    memory = _SCRATCH * footprint.peak_of(step.jaxpr) + data + (5 + 2 * count) * weights
    each = operations.products(step.jaxpr) + _OF_STEP + _OF_WEIGHT * weights / 4
    return Cost(memory, count * steps * each)


def of_restoring(network: Network) -> Cost:
    """Counts what restoring a network from essential weights takes."""
    weights = footprint.size(jax.eval_shape(network.init, jax.random.key(0)))
    return Cost(6 * weights, _OF_WEIGHT * weights)


def of_deciding(about: About, network: Network, count: int) -> Cost:
    """Counts what deciding one whole image takes.

    Args:
      about: the manifest of a package or of essential weights.
      network: that decides.
      count: R, number of networks.
    """
    patch, classes = about.patch, len(about.class_names)
    params = jax.eval_shape(network.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *patch.shape), jnp.float32)
    forward = jax.make_jaxpr(network.apply)(params, image).jaxpr
    weights, patches = footprint.size(params), patches_of(patch)
    pixels = patch.image_height * patch.image_width
    at_once = min(patches, max(1, FORWARD_BYTES // max(1, footprint.size(image))))
    at_once = min(at_once, max(1, FORWARD_BYTES // max(1, largest(network, patch.shape))))
    memory = (
        _SCRATCH * at_once * footprint.peak_of(forward)
        + count * weights
        + _OF_FILE_PIXEL * pixels * patch.downscale**2
        + _OF_PIXEL * pixels
        # Corners, and the probabilities of all networks, twice each.
        + patches * (32 + 8 * classes * (count + 1))
    )
    each = operations.products(forward) + _OF_PATCH
    return Cost(memory, patches * count * each + _OF_PATCH * pixels)


def patches_of(patch: PatchGeometry) -> int:
    """Counts the patches of an image without listing them; 0 where none fits."""
    count = 1
    for side in (patch.image_height, patch.image_width):
        past = side - patch.size
        if past < 0:
            return 0
        count *= past // patch.stride + 1 + (patch.border and past % patch.stride > 0)
    return count


def largest(network: Network, shape: tuple[int, ...]) -> int:
    """Counts the bytes of the largest array that one patch `[H, W, C]` is made into."""
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0))
    traced = jax.make_jaxpr(network.apply)(params, image)
    arrays = (var.aval for equation in traced.eqns for var in equation.outvars)
    return max(array.size * array.dtype.itemsize for array in arrays if array.shape[:1] == (1,))
