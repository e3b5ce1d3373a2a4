"""Initial weights in a package: named, shaped and typed as the network has them.

What a stranger calls an array becomes the name of a file when it is exported; and arrays that are
not the network's would fail deep in its training, or be left out without a word.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gxdistill import models, storage
from gxdistill.errors import UserError
from gxdistill.package.manifest import WAY_OUT
from gxdistill.pytrees import Metadata, Params


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


def check_start(manifest: Metadata, start: Params, where: Path) -> None:
    """Refuses initial weights with unsound names, or that are not those of the network.

    A network that is not of the zoo has its own structure: then any names are taken that can be
    files'.

    Args:
      manifest: of the package, checked.
      start: the weights, arrays of any kind.
      where: they come from; for messages.

    Raises:
      UserError: naming the array.
    """
    if hasattr(start, "shape"):
        raise UserError(f"{where}: start is one array, and not a table of them. {WAY_OUT}")
    try:
        found = {name: _form(leaf) for name, leaf in leaves(start).items()}
    except storage.BadNameError as error:
        raise UserError(f"{where}: of the arrays start, {error}") from error
    name = manifest["network"]["name"]
    if name not in models.NAMES:
        return
    wanted = _forms_of(manifest, where)
    for leaf in sorted(found.keys() | wanted.keys()):
        if found.get(leaf) != wanted.get(leaf):
            raise UserError(
                f"{where}: the array start.{leaf} is {found.get(leaf, 'missing')} where the "
                f"network {name} asks for {wanted.get(leaf, 'none')}. {WAY_OUT}"
            )


def _form(leaf: Any) -> _Form:
    return _Form(str(leaf.dtype), np.shape(leaf))


def _forms_of(manifest: Metadata, where: Path) -> dict[str, _Form]:
    network, patch = manifest["network"], manifest["patch"]
    shape = (patch["size"], patch["size"], patch["channels"])
    options = json.dumps(network["options"], sort_keys=True)
    try:
        return _forms(network["name"], options, shape, len(manifest["class_names"]))
    except (ValueError, TypeError) as error:  # of options that are not the network's
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: its network cannot be made: {reason} {WAY_OUT}") from error


# Traced, never allocated; `models.create` refuses what would take long to trace. A training loads
# its package several times.
@functools.lru_cache(maxsize=8)
def _forms(name: str, options: str, shape: tuple[int, ...], classes: int) -> dict[str, _Form]:
    network = models.create(name, shape=shape, classes=classes, **json.loads(options))
    weights = jax.eval_shape(network.init, jax.random.key(0))
    return {leaf: _form(array) for leaf, array in leaves(weights).items()}
