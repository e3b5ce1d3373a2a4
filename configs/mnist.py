r"""MNIST, the digits on which the base method was published.

Wang et al. 2018, https://arxiv.org/abs/1811.10959, with the soft labels of Sucholutsky & Schonlau
2019, https://arxiv.org/abs/1910.02551: LeNet, real batch 1,024; known initial weights and the
pixels of 10 or 5 images in all, or any initial weights and 100 images. Heavy-ball momentum in the
inner steps and labels by softmax are ours: with them the meta-gradient is calmer, and learns
faster. It stays so through 60 steps only if rates hardly move.

What 10 or 5 images hold is learned as shared bases, after Deng & Russakovsky 2022,
https://arxiv.org/abs/2206.02916: each inner step has its own mixtures of them, with labels of their
own. So known_10 learns 7,840 pixels as 10 images have, and beside them 1,500 shares in mixtures and
1,500 numbers of labels; known_5 learns 3,920, 750 and 1,500. A package holds the 150 mixtures.

A ConvNet-3 of width 32, where the field's has 128, learns 10 bases for any initial weights, in any
order and at one rate, so that they fit into other training: a hundred mixtures, 7,840 pixels, 1,000
shares and 1,000 numbers of labels, started from real digits, which are public. Ten mixtures a step
and ten epochs learn far faster than three a step, or than twice as many mixtures in five epochs.
A package is replayed for fifteen epochs: to learn through as many fits worse, and to train for as
many is calmer. Images that are moved slowly stay nearer to digits, for networks of other kinds.

  gxdistill distill --config=configs/mnist.py                    # known_10: 0.980, 21 min
  gxdistill distill --config=configs/mnist.py:known_5            # 0.953, 9 min
  gxdistill distill --config=configs/mnist.py:random_100         # 0.902, 12 min
  gxdistill distill --config=configs/mnist.py:convnet_random_10  # 0.955, 58 min
  gxdistill distill --config=configs/mnist.py:private            # --config.privacy.epsilon=10
  gxdistill distill --config=configs/mnist.py:smoke

"private" releases statistics of scattering features once, at epsilon 1 and delta 1e-5, and draws
2,200 images from them in 4 bits; "private_smoke" does so in a minute.

The field's width, on an accelerator, for which `python -m benchmarks.gpu` runs it; not measured:

  gxdistill distill --config=configs/mnist.py:convnet128_random_10

Accuracy on the test set; CPU time on one core of an AMD EPYC, evaluation and its ceiling included,
by `benchmarks.main_job`. More of both: the table "Digits" of benchmarks/README.md.
"""

import os

import ml_collections

from gxdistill.tasks.distillation.settings import default_config, shrink_to_smoke

_VARIANTS = (
    *("known_10", "known_5", "random_100", "convnet_random_10", "convnet128_random_10"),
    *("private", "private_smoke", "smoke"),
)


def get_config(variant: str = "known_10") -> ml_collections.ConfigDict:
    """Makes the config: initial weights and number of images, or "smoke"."""
    if variant not in _VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {_VARIANTS}")
    config = default_config()
    config.name = f"mnist_{variant}" if "convnet" in variant else f"mnist_lenet_{variant}"
    config.data.kind = "mnist"
    config.data.path = os.environ.get("GXDISTILL_DATA", "../shared/data") + "/mnist"
    config.patch.size = 28
    config.patch.stride = 28
    config.network.name = "lenet"
    config.distill.update(init="known", steps=1, images_per_step=10, epochs=30, batch=1024)
    config.distill.update(inner="momentum", start_lr=0.005, label_rule="softmax")
    config.distill.update(outer_steps=6000, checkpoint_every=500, evaluate_every=1000)
    config.distill.optimizer.update(images_lr=0.02, labels_lr=0.05, rates_lr=0.01)
    if variant == "known_10":
        config.distill.update(steps=15, epochs=2, synthesis="bases", bases=10, outer_steps=17000)
    if variant == "known_5":
        config.distill.update(steps=30, epochs=2, synthesis="bases", bases=5)
        config.distill.update(images_per_step=5, start_lr=0.01)
        config.distill.optimizer.update(images_lr=0.015, rates_lr=0.001, ema_clip=2.0)
    if variant == "random_100":
        config.distill.update(init="random", steps=10, epochs=6, start_lr=0.01)
        config.distill.optimizer.update(images_lr=0.04, rates_lr=0.001, ema_clip=2.0)
        config.evaluate.networks = 20
    if "convnet" in variant:
        config.network.name = "convnet"
        config.network.options = {"width": 32}
        config.distill.update(init="random", steps=10, images_per_step=10, epochs=10, batch=512)
        config.distill.update(synthesis="bases", bases=10, started_from="real", start_lr=0.02)
        config.distill.update(rates="order_free", outer_steps=4000, replay_epochs=15)
        config.distill.update(checkpoint_every=100, evaluate_every=500)
        config.distill.optimizer.update(images_lr=0.02, labels_lr=0.05, rates_lr=0.005)
        config.distill.optimizer.ema_clip = 2.0
        config.evaluate.networks = 20
        config.evaluate.ceiling.networks = 1
    if variant == "convnet128_random_10":
        config.network.options = {"width": 128}
        config.distill.update(batch=1024, memory_budget_mb=0, checkpoint_every=50)
        config.evaluate.baselines = "none"
    if variant.startswith("private"):
        config.name = f"mnist_{variant}"
        config.data.levels = "fixed"
        config.distill.update(init="random", steps=22, images_per_step=100, epochs=60)
        config.distill.update(inner="adam", start_lr=0.003, start_schedule="cosine")
        config.distill.replay_augmentations = ("rotate", "shift", "scale")
        config.distill.precision = "uint4"
        config.privacy.update(mechanism="statistics", epsilon=1.0, delta=1e-5)
        config.privacy.statistics.update(features="scattering", prior="strokes", count=600)
        config.privacy.statistics.update(pixels=100, steps=0, sharpness=4.0)
        config.evaluate.update(networks=3, baseline_networks=1)
        config.evaluate.ceiling.update(networks=1, steps=1000)
    if variant == "private_smoke":
        config.data.limit = 700
        config.distill.update(steps=2, images_per_step=10, epochs=2)
        config.privacy.statistics.update(features="oriented_gradients", count=30, pixels=10)
        config.privacy.statistics.update(steps=4, checkpoint_every=2)
        shrink_to_smoke(config, batch=20)
    if variant == "smoke":
        config.name = "mnist_smoke"
        config.data.limit = 700
        config.distill.epochs = 2
        shrink_to_smoke(config, batch=20)
    return config
