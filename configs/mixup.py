r"""Segments mixtures of private slices with public ones, and un-mixes the answers.

gxdistill mixup train --config=configs/mixup.py:hippocampus --config.mixup.path=FOLDER
gxdistill mixup train --config=configs/mixup.py:smoke     # a minute, phantoms
"""

import ml_collections

from gxdistill.tasks.mixup.settings import default_config


def get_config(variant: str = "hippocampus") -> ml_collections.ConfigDict:
    """Makes the config: "hippocampus" or "smoke"."""
    if variant not in ("hippocampus", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are 'hippocampus' and 'smoke'")
    config = default_config()
    config.name = "mixup_hippocampus"
    config.mixup.data = "volumes"
    config.mixup.classes = ("background", "anterior", "posterior")
    config.mixup.pool = 32
    if variant == "smoke":
        config.name = "mixup_smoke"
        config.mixup.data = "phantom"
        config.mixup.classes = ("background", "front", "back")
        config.mixup.pool = 4
        config.mixup.segmenter = {"width": 4, "depth": 2}
        config.mixup.unmixer = {"width": 4, "depth": 1}
        config.mixup.update(patients=12, steps=40, attack_steps=20, batch=8, checkpoint_every=20)
    return config
