r"""The whole job on a built-in cohort of procedural stomach radiographs.

gxdistill demo                                     # all stages, ends with a table and a page
gxdistill distill --config=configs/demo.py:random  # a package for any initial weights
gxdistill distill --config=configs/demo.py:smoke   # a minute
"""

import ml_collections

from gxdistill.tasks.distillation.settings import default_config, shrink_to_smoke

_VARIANTS = ("full", "random", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Makes the config: "full" and "smoke" for known initial weights, "random" for any."""
    if variant not in _VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {_VARIANTS}")
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
    if variant == "random":
        config.name = "demo_random"
        config.distill.update(init="random", steps=31, images_per_step=60, epochs=24, outer_steps=0)
        config.distill.update(started_from="mixture", started_labels="networks")
        config.distill.update(inner="adam", start_lr=0.006, start_schedule="cosine")
        config.distill.precision = "uint4"
        config.distill.replay_augmentations = ("flip",)  # chosen on phantoms of other seeds
        config.evaluate.baselines = "ceiling"
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
