"""Sites that train one network together: pure functions, and no network between them."""

from typing import TYPE_CHECKING

from gxdistill import _lazy

if TYPE_CHECKING:
    from gxdistill.federated.adaptive import AdaptiveBound
    from gxdistill.federated.aggregation import (
        in_sequence,
        median,
        over_mesh,
        server_optimizer,
        trimmed_mean,
    )
    from gxdistill.federated.fixed_point import FixedPoint
    from gxdistill.federated.gradients import private_gradient, weighted_gradient
    from gxdistill.federated.local import local_training, mean_gradient
    from gxdistill.federated.rounds import Protection, federation, server_round, site_round
    from gxdistill.federated.secure_aggregation import masked_sum

__all__ = [
    "AdaptiveBound",
    "FixedPoint",
    "Protection",
    "federation",
    "in_sequence",
    "local_training",
    "masked_sum",
    "mean_gradient",
    "median",
    "over_mesh",
    "private_gradient",
    "server_optimizer",
    "server_round",
    "site_round",
    "trimmed_mean",
    "weighted_gradient",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "adaptive": ("AdaptiveBound",),
        "aggregation": (
            "in_sequence",
            "median",
            "over_mesh",
            "server_optimizer",
            "trimmed_mean",
        ),
        "fixed_point": ("FixedPoint",),
        "gradients": ("private_gradient", "weighted_gradient"),
        "local": ("local_training", "mean_gradient"),
        "rounds": ("Protection", "federation", "server_round", "site_round"),
        "secure_aggregation": ("masked_sum",),
    },
)
