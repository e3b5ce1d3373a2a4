"""Initial weights in a package: named, shaped and typed as the network has them.

What a stranger calls an array becomes the name of a file when it is exported; and arrays that are
not the network's would fail deep in its training, or be left out without a word.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gxdistill import models, storage
from gxdistill.errors import UserError
from gxdistill.models.cached import cached_network
from gxdistill.package.fields import About
from gxdistill.package.manifest import WAY_OUT
from gxdistill.pytrees import Params


class _Form(NamedTuple):
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def leaves(start: Params) -> dict[str, Any]:
    """Returns the arrays of initial weights by name: the keys on their way, joined by dots.

    Raises:
      BadNameError: a key is no plain name without dots, or all of them are too long for a file's.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(start):
        keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
        for key in keys:
            if "." in storage.plain_name(key):  # else "a.b" would be both b of a, and a key
                raise storage.BadNameError(key, "holds a dot")
        # As it is exported.
        name = storage.plain_name(f"start.{'.'.join(keys)}.npy")
        named[name.removeprefix("start.").removesuffix(".npy")] = leaf
    return named


def check_start(
    about: About, start: Params, where: Path, known: Sequence[str] = models.NAMES
) -> None:
    """Refuses initial weights with unsound names, or that are not those of the network.

    A network that is not of the zoo has its own structure: then any names are taken that can be
    files'.

    Args:
      about: the package's manifest.
      start: the weights, arrays of any kind.
      where: they come from; for messages.
      known: names of the zoo's networks that it may be.

    Raises:
      UserError: naming the array.
    """
    if hasattr(start, "shape"):
        raise UserError(f"{where}: start is one array, and not a table of them. {WAY_OUT}")
    try:
        forms = {name: _form(leaf) for name, leaf in leaves(start).items()}
    except storage.BadNameError as error:
        raise UserError(f"{where}: of the arrays start, {error}") from error
    weights = structure(about, where, known)
    if weights is None:
        return
    wanted = {name: _form(leaf) for name, leaf in leaves(weights).items()}
    for name in sorted(forms.keys() | wanted.keys()):
        if forms.get(name) != wanted.get(name):
            raise UserError(
                f"{where}: the array start.{name} is {forms.get(name, 'missing')} where the "
                f"network {about.network.name} asks for {wanted.get(name, 'none')}. "
                f"{WAY_OUT}"
            )


def structure(about: About, where: Path, known: Sequence[str] = models.NAMES) -> Params | None:
    """Returns shapes and dtypes of the weights that a manifest's network has, without allocating.

    Args:
      about: the manifest of a package or of essential weights.
      where: it comes from; for messages.
      known: names of the zoo's networks that it may be.

    Returns:
      A tree of `jax.ShapeDtypeStruct`; None for a network that is not of the zoo.

    Raises:
      UserError: the zoo has no such network: its options or its size are out of bounds.
    """
    if about.network.name not in known:
        return None
    name, options, classes = about.network.name, about.network.options, len(about.class_names)
    try:
        network = cached_network(name, options, about.patch.shape, classes)
    except UserError as error:
        reason = " ".join(str(error).split())[:200]  # Of Flax, it may be lines.
        raise UserError(f"{where}: {reason} {WAY_OUT}") from error
    return jax.eval_shape(network.init, jax.random.key(0))


def _form(leaf: Any) -> _Form:
    return _Form(str(leaf.dtype), np.shape(leaf))
