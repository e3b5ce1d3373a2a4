r"""The papers' sizes: 2048 px double-contrast gastric X-rays, patches of 299 px at stride 50.

Li et al., https://arxiv.org/abs/2104.02857: 200 training patients of 815; 3 distilled images an
inner step, ResNet-18 (with GroupNorm). The cohort is private: name a folder of your own with
`--config.data.path`, in it `manifest.csv` (image, mask, label, patient; site and split optional).

Expected: not measured; the job wants an accelerator. What it would take of one:

  gxdistill plan --config=configs/gastric.py --target=h100    # or tpu-v5e-8; docs/sending.md

  gxdistill distill --config=configs/gastric.py --config.data.path=FOLDER
  gxdistill distill --config=configs/gastric.py:smoke    # phantoms, small, a minute on a CPU

The same sizes on 200 training and 100 test phantoms, drawn on the device, for known and for any
initial weights; meant for ten minutes each of one large GPU, and not measured:

  gxdistill distill --config=configs/gastric.py:phantom_known
  gxdistill distill --config=configs/gastric.py:phantom_random
"""

import ml_collections

from gxdistill.tasks.distillation.settings import default_config, shrink_to_smoke

_VARIANTS = ("full", "phantom_known", "phantom_random", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Makes the config: "full", phantoms for "known" or "random" initial weights, or "smoke"."""
    if variant not in _VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {_VARIANTS}")
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
    if variant.startswith("phantom"):
        config.name = f"gastric_{variant}"
        config.data.kind = "phantom"
        config.data.image_size = None
        config.data.update(patients=300, size=2048, train_share=2 / 3)
        config.distill.update(init="known", networks=1, outer_steps=2000)
        config.distill.update(memory_budget_mb=0, evaluate_every=500)
        config.evaluate.update(networks=2, threshold_images=40, baseline_networks=1)
        config.evaluate.ceiling.update(networks=2, steps=1500)
    if variant == "phantom_random":
        config.distill.update(init="random", steps=5, epochs=6, networks=2, networks_at_once=0)
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
