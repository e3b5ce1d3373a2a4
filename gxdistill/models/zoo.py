"""Creates networks by name; the only place that turns Flax modules into `Network`."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gxdistill import _check
from gxdistill.models.convnet import ConvNet
from gxdistill.models.lenet import LeNet
from gxdistill.models.resnet import ResNet
from gxdistill.models.unet import UNet
from gxdistill.pytrees import Network, Params

_CLASSIFIERS: dict[str, type[nn.Module]] = {
    "lenet": LeNet,
    "convnet": ConvNet,
    "resnet18": ResNet,
}
_SEGMENTERS: dict[str, type[nn.Module]] = {"unet": UNet}
_MODULES = _CLASSIFIERS | _SEGMENTERS
_SMALLEST = {"lenet": 12, "resnet18": 8}
_SHARED_FROM = 16  # Pixels a side; all of smaller patches sees their edges.
NAMES = tuple(_CLASSIFIERS)
SEGMENTERS = tuple(_SEGMENTERS)  # Whose logits are `[N, H, W, K]`, of each pixel.
# A stranger's package may ask for any network: too large a one is neither traced nor allocated.
_MAX_OPTION, _MAX_BLOCKS, _MAX_BYTES = 2**16, 256, 2**30


def create(
    name: str,
    *,
    shape: Sequence[int],
    classes: int,
    dtype: str = "float32",
    **options: int | str | Sequence[int],
) -> Network:
    """Creates a network of the zoo.

    Args:
      name: "lenet", "convnet" or "resnet18", which judge an image, or "unet", which judges each of
        its pixels.
      shape: of one image, `[H, W, C]`.
      classes: K, number of logits.
      dtype: in which products are computed: "float32", "bfloat16" or, where JAX's 64-bit types are
        enabled, "float64"; parameters are drawn in float32, logits are float32 at least.
      **options: the module's own settings, such as `width`, `depth` and `norm` of a ConvNet.

    Returns:
      The network as pure functions.

    Raises:
      ValueError: a name is unknown, an option is not the module's or has no meaning, the image is
        too small, or the weights would take over 1 GiB.
    """
    _check.one_of("network", name, tuple(_MODULES))
    double = ("float64",) if jax.config.read("jax_enable_x64") else ()
    _check.one_of("dtype", dtype, ("float32", "bfloat16", *double))
    _check_options(name, options, shape)
    if "stages" in options:
        options["stages"] = tuple(options["stages"])  # type: ignore[arg-type]
    module = _MODULES[name](classes=classes, dtype=jnp.dtype(dtype), **options)
    whole = "apply_levels" if name in SEGMENTERS else "__call__"  # What uses all weights.

    def init(key: jax.Array) -> Params:
        return module.init(key, jnp.zeros((1, *shape), jnp.float32), method=whole)["params"]

    def apply(params: Params, images: jax.Array) -> jax.Array:
        logits: jax.Array = module.apply({"params": params}, images)  # type: ignore[assignment]
        return logits

    def apply_windows(
        params: Params, image: jax.Array, corners: jax.Array, size: int, at_once: int
    ) -> jax.Array:
        given = (image, corners, size, at_once)
        logits: jax.Array = module.apply({"params": params}, *given, method="apply_windows")  # type: ignore[assignment]
        return logits

    def apply_levels(params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
        levels: tuple[jax.Array, ...] = module.apply(  # type: ignore[assignment]
            {"params": params}, images, method="apply_levels"
        )
        return levels

    # The modules check their settings here.
    params = jax.eval_shape(lambda: init(jax.random.key(0)))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    if size > _MAX_BYTES:
        raise ValueError(
            f"The weights of this {name} would take {size / 2**30:.3g} GiB, over 1 GiB. Choose "
            f"smaller options or patches."
        )
    shared = hasattr(module, "apply_windows") and min(shape[:2]) >= _SHARED_FROM
    return Network(
        init,
        apply,
        apply_windows if shared else None,
        apply_levels if name in SEGMENTERS else None,
    )


def _check_options(
    name: str, options: Mapping[str, int | str | Sequence[int]], shape: Sequence[int]
) -> None:
    """Refuses what is no option of a network, no size of one, or too much for its images."""
    known = [f for f in _MODULES[name].__dataclass_fields__ if f not in ("parent", "name")]
    for option, value in options.items():
        _check.one_of(f"option of {name}", option, known)
        _check_size(option, value)
    smallest = _SMALLEST.get(name) or 2 ** int(options.get("depth", 3))  # type: ignore[arg-type]
    if min(shape[:2]) < smallest:
        raise ValueError(
            f"Images of {shape[0]}x{shape[1]} pixels are too small for {name}, which needs "
            f"{smallest}. Use larger patches or another network."
        )


def _check_size(option: str, value: int | str | Sequence[int]) -> None:
    """Refuses numbers that no network has."""
    if isinstance(value, str):
        return
    numbers = [value] if isinstance(value, int) else [*value]
    for number in numbers:
        _check.positive(**{option: number})
    if sum(numbers) > (_MAX_OPTION if isinstance(value, int) else _MAX_BLOCKS):
        raise ValueError(f"`{option}` is {value}: no network here is as large. Lower it.")
