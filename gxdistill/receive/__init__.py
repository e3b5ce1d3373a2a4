"""The receiving side: networks and decisions from a package, without anything of the sender."""

from typing import TYPE_CHECKING

from gxdistill import _lazy

if TYPE_CHECKING:
    from gxdistill.receive.calibrating import calibrate
    from gxdistill.receive.networks import (
        Trained,
        from_weights,
        load_networks,
        save_networks,
        train_each,
        train_networks,
    )
    from gxdistill.receive.predicting import of_patches, patch_grid, predict

__all__ = [
    "Trained",
    "calibrate",
    "from_weights",
    "load_networks",
    "of_patches",
    "patch_grid",
    "predict",
    "save_networks",
    "train_each",
    "train_networks",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "calibrating": ("calibrate",),
        "networks": (
            "Trained",
            "from_weights",
            "load_networks",
            "save_networks",
            "train_each",
            "train_networks",
        ),
        "predicting": ("of_patches", "patch_grid", "predict"),
    },
)
