r"""Two hospitals that learn one distilled set together: each sends meta-gradients, and no network.

  gxdistill federate distill --config=configs/sharing.py        # Montgomery and Shenzhen
  gxdistill federate distill --config=configs/sharing.py:smoke  # a minute, phantoms

"radiograph" learns of both hospitals what radiograph:known_from_noise learns in one place, from as
many patches a step; `gxdistill evaluate` measures it like any other.
"""

import os

import ml_collections

from gxdistill.tasks.distillation.settings import default_config, shrink_to_smoke
from gxdistill.tasks.federation.sharing import add_settings

_VARIANTS = ("radiograph", "smoke")


def get_config(variant: str = "radiograph") -> ml_collections.ConfigDict:
    """Makes the config: "radiograph" or "smoke"."""
    if variant not in _VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {_VARIANTS}")
    config = default_config()
    add_settings(config)
    config.name = f"sharing_{variant}"
    if variant == "radiograph":
        config.data.path = os.environ.get("GXDISTILL_DATA", "../shared/data")
        config.data.manifest = "cxr_tb_lung/labels.csv"
        config.data.columns = {"image": "images/{id}.jpg", "mask": "masks/{id}.png"}
        config.data.label_names = ("normal", "tuberculosis")
        config.data.downscale = 4
        config.data.normalise = "organ_histogram"
        config.patch.update(size=16, stride=8)
        config.network.options = {"width": 32, "depth": 3, "norm": "instance"}
        config.decision.rule = "soft"
        # Of each hospital half as many patches as in one place.
        config.distill.update(init="known", steps=20, epochs=2, outer_steps=1500, batch=128)
        config.distill.optimizer.images_lr = 0.1
        config.evaluate.ceiling.steps = 1000
    if variant == "smoke":
        config.data.kind = "phantom"
        config.data.update(patients=16, size=128)
        config.patch.update(size=16, stride=8, inside_above=0.6)
        config.network.options = {"width": 4, "depth": 1}
        config.distill.update(init="known", steps=2, epochs=1)
        shrink_to_smoke(config, outer_steps=8)
        config.sharing.secure = True
    return config
