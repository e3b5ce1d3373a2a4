r"""MNIST, the digits on which the base method was published.

Wang et al. 2018, https://arxiv.org/abs/1811.10959: LeNet, known initial weights, T = 30, real
batch 1,024. Ten distilled images in all: one a step, a class each.

  gxdistill distill --config=configs/mnist.py
  gxdistill distill --config=configs/mnist.py:smoke

Result, time and device: the table "Digits" of benchmarks/README.md.
"""

import os

import ml_collections

from gxdistill.run.defaults import default_config


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """Makes the config: "full" or "smoke"."""
    if variant not in ("full", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are 'full' and 'smoke'")
    config = default_config()
    config.name = "mnist_lenet_known_10"
    config.data.kind = "mnist"
    config.data.path = os.environ.get("GXDISTILL_DATA", "../shared/data") + "/mnist"
    config.patch.size = 28
    config.patch.stride = 28
    config.network.name = "lenet"
    config.distill.update(init="known", steps=1, images_per_step=10, epochs=30, batch=1024)
    config.distill.update(outer_steps=4000, checkpoint_every=200, evaluate_every=500)
    config.distill.optimizer.update(images_lr=0.02, labels_lr=0.01, rates_lr=0.01)
    if variant == "smoke":
        config.name = "mnist_smoke"
        config.data.limit = 700
        config.distill.update(epochs=2, outer_steps=4, batch=20, steps_per_call=2)
        config.distill.update(checkpoint_every=2, evaluate_every=4, evaluate_patches=30)
        config.evaluate.update(networks=2, baseline_networks=1)
        config.evaluate.ceiling.update(networks=1, steps=4, batch=20)
    return config
