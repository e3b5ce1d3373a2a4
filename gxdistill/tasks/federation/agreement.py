"""What the server and the sites of a federation over a network must agree on."""

import hashlib
import json

import jax
import ml_collections
from ml_collections import ConfigDict

from gxdistill.errors import UserError
from gxdistill.federated.rounds import Protection
from gxdistill.models.cached import cached_network
from gxdistill.package import seeds
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Metadata, Network
from gxdistill.tasks.federation import hospitals, training

_SECTIONS = ("seed", "network", "patch", "sampling", "federation")
_OF_DATA = ("colour", "mask_classes")
# What only a simulation or the server asks for, and where a cohort's sites are from.
_FREE = ("alone", "central", "checkpoint_every", "deal", "least", "overlap", "start")


def settings_of(config: ConfigDict) -> Metadata:
    """Tells all settings that the weights of a federation depend on, beside the sites' patients."""
    chosen = {name: config[name] for name in _SECTIONS}
    settings = json.loads(ml_collections.ConfigDict(chosen).to_json_best_effort())
    for name in _FREE:
        del settings["federation"][name]
    data = json.loads(config.data.to_json_best_effort())
    return {**settings, "data": {name: data[name] for name in _OF_DATA}}


def digest_of(config: ConfigDict) -> str:
    """Returns the SHA-256 of `settings_of`, by which both sides see that they agree."""
    return hashlib.sha256(json.dumps(settings_of(config), sort_keys=True).encode()).hexdigest()


def check(config: ConfigDict) -> None:
    """Refuses what a federation over a network does not do.

    Raises:
      UserError: naming the setting.
    """
    if config.federation.secure:
        raise UserError(
            "federation.secure is on: masked sums are there in a simulation alone, and over a "
            "network the server would see each update. Set --config.federation.secure=False, and "
            "trust the server or let federation.protect name 'site'."
        )
    if "patient" in config.federation.protect:
        raise UserError(
            "federation.protect names 'patient': its noise is whole only in a masked sum, which is "
            "there in a simulation alone. Name 'site', or nothing."
        )


def protection_of(config: ConfigDict) -> Protection | None:
    """Returns the protection of each site's update; None where `federation.protect` names none."""
    if "site" in config.federation.protect:
        return training.protection(config.federation.site)
    return None


def network_of(config: ConfigDict) -> Network:
    """Makes the network that is trained, from the settings alone: a server has no images.

    Raises:
      UserError: it does not fit the crops.
    """
    shape = (*(config.patch.size,) * 2, 3 if config.data.colour else 1)
    classes = len(hospitals.class_names(config))
    return cached_network(config.network.name, config.network.options, shape, classes)


def key_of(config: ConfigDict) -> jax.Array:
    """Returns the key of the federation, as a simulation has it."""
    return seeds.key(config.seed, Use.LOOP)
