r"""The whole job on a built-in cohort of procedural stomach radiographs.

gxdistill demo                                     # all stages, ends with a table and a page
gxdistill distill --config=configs/demo.py:smoke   # a minute
"""

import ml_collections

from gxdistill.tasks.distillation.settings import default_config, shrink_to_smoke


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Makes the config: "full" or "smoke"."""
    if variant not in ("full", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are 'full' and 'smoke'")
    config = default_config()
    config.name = "demo"
    config.data.kind = "phantom"
    config.data.patients = 200
    config.data.size = 256
    config.patch.size = 32
    config.patch.stride = 16
    config.network.options = {"width": 16, "depth": 3, "norm": "instance"}
    config.distill.update(init="known", outer_steps=300, batch=128, checkpoint_every=50)
    config.evaluate.update(threshold_images=60, baseline_networks=2)
    config.evaluate.ceiling.update(networks=1, steps=600, batch=128, lr=0.003)
    if variant == "smoke":
        config.name = "demo_smoke"
        config.data.patients = 16
        config.data.size = 128
        config.patch.size = 16
        config.patch.stride = 8
        config.patch.inside_above = 0.6
        config.network.options = {"width": 4, "depth": 1}
        config.distill.update(steps=2, epochs=1)
        shrink_to_smoke(config, outer_steps=8)
    return config
