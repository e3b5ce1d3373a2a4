r"""The papers' sizes: 2048 px double-contrast gastric X-rays, patches of 299 px at stride 50.

Li et al., https://arxiv.org/abs/2104.02857: 200 training patients of 815; 3 distilled images an
inner step, ResNet-18 (with GroupNorm). The cohort is private: name a folder of your own with
`--config.data.path`, in it `manifest.csv` (image, mask, label, patient; site and split optional).

Expected: not measured; the job wants an accelerator. What it would take of one:

  gxdistill plan --config=configs/gastric.py --target=h100    # or tpu-v5e-8; README

  gxdistill distill --config=configs/gastric.py --config.data.path=FOLDER
  gxdistill distill --config=configs/gastric.py:smoke    # phantoms, small, a minute on a CPU
"""

import ml_collections

from gxdistill.tasks.distillation.settings import default_config, shrink_to_smoke


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Makes the config: "full" or "smoke"."""
    if variant not in ("full", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are 'full' and 'smoke'")
    config = default_config()
    config.name = "gastric"
    config.data.image_size = (2048, 2048)
    config.network.name = "resnet18"
    config.network.options = {"dtype": "bfloat16"}
    config.distill.update(
        steps=1,
        epochs=30,
        networks=4,
        networks_at_once=1,  # A large network fills an accelerator by itself.
        outer_steps=10_000,
        start_lr=0.01,
    )
    config.evaluate.ceiling.steps = 20_000
    if variant == "smoke":
        config.name = "gastric_smoke"
        config.data.kind = "phantom"
        config.data.image_size = None
        config.data.update(patients=8, size=128)
        config.patch.size = 16
        config.patch.stride = 16
        config.patch.inside_above = 0.6
        config.network.options = {"stages": (1,), "width": 4, "dtype": "bfloat16"}
        config.distill.update(epochs=2, networks=2)
        shrink_to_smoke(config)
    return config
