"""Federations of phantoms, small enough to run in tests, and a network that NumPy could be."""

import jax
import jax.numpy as jnp

from configs import federation
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.pytrees import Network


def make(workdir, log=print, configs=federation, **changes):
    """The smoke job of a file of configs with changes, `federation__rounds=1`."""
    config = configs.get_config("smoke")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return Job(config, Workdir(workdir), log)


def pixelwise(channels=1, classes=2):
    """A network whose logits of a pixel are a product of its values with a matrix."""

    def init(key):
        return {"w": jax.random.normal(key, (channels, classes)), "b": jnp.zeros(classes)}

    def apply(params, images):
        return images @ params["w"] + params["b"]

    return Network(init, apply, None, lambda params, images: (apply(params, images),))
