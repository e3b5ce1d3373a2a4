"""Networks for a user's settings: the same settings give the same object, and one line of blame."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import jax

from gxdistill.errors import UserError
from gxdistill.models.zoo import create
from gxdistill.pytrees import Network


def cached_network(
    name: str, options: Mapping[str, Any], shape: tuple[int, ...], classes: int
) -> Network:
    """Creates a network of the zoo for a user's settings; the same settings give the same object.

    Raises:
      UserError: a name, an option or the size of the images does not fit.
    """
    try:
        return _network(name, json.dumps(dict(options), sort_keys=True), shape, classes)
    except ValueError as error:
        raise UserError(f"network: {error}") from error
    except TypeError as error:  # what Flax says to an option of another type
        raise UserError(f"network: {dict(options)} does not fit {name}: {error}.") from error


# Compiled programs belong to the object: stages that run in one process share them.
@functools.lru_cache(maxsize=32)  # A service may see many packages.
def _network(name: str, options: str, shape: tuple[int, ...], classes: int) -> Network:
    network = create(name, shape=shape, classes=classes, **json.loads(options))
    return network._replace(init=jax.jit(network.init))
