"""The weights that a federation starts from: drawn, or those of a segmenter."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.package import seeds
from gxdistill.package.seeds import Use
from gxdistill.package.segmenter import load_segmenter
from gxdistill.pytrees import Metadata, Network, Params


def start_of(config: ConfigDict, network: Network) -> Params:
    """Draws the first weights by the seed, or reads them where `federation.start` names a package.

    Raises:
      UserError: the package is no sound segmenter, or its weights are not of this network.
    """
    drawn = network.init(seeds.key(config.seed, Use.KNOWN))
    if not config.federation.start:
        return drawn
    read = load_segmenter(Path(config.federation.start)).params
    if jax.tree.map(np.shape, read) != jax.tree.map(np.shape, drawn):
        raise UserError(
            f"federation.start is {config.federation.start}, whose weights are not those of "
            f"{config.network.name} with {config.network.options.to_dict()} for as many classes "
            f"and channels as here. Train it with the same settings `network`."
        )
    return jax.tree.map(jnp.asarray, read)


def identity_of(config: ConfigDict) -> Metadata:
    """Tells the SHA-256 of the package that is started from, if there is one.

    Raises:
      UserError: it is not there, or cannot be read.
    """
    start = config.federation.start
    if not start:
        return {}
    if not Path(start).exists():
        raise UserError(
            f"federation.start is {start}, which is not there. Make it by `gxdistill segment "
            f"train`, or set federation.start to '' for weights drawn at random."
        )
    return {"start": package.digest(Path(start))}
