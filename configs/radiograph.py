r"""Distils 704 chest radiographs with lung masks and a tuberculosis label, from two hospitals.

The public stand-in for the gastric set (lung = organ, tuberculosis = positive), with the papers'
protocol: a patch is irrelevant outside the lung, else it inherits the label of its image. Jaeger et
al., Quant Imaging Med Surg 4(6):475, 2014. Images are averaged to 128 px, so that a patch of 16 px
is as large a part of its image as the papers' 299 of 2048 px.

  gxdistill distill --config=configs/radiograph.py --config.data.path=../shared/data
  gxdistill distill --config=configs/radiograph.py:known_from_noise  # the same, from noise
  gxdistill distill --config=configs/radiograph.py:random   # for any initial weights
  gxdistill distill --config=configs/radiograph.py:learned  # the same, images learned from noise
  gxdistill distill --config=configs/radiograph.py:few      # 60 images, learned on from a mixture
  gxdistill distill --config=configs/radiograph.py:to_shenzhen  # as random, from Montgomery alone
  gxdistill distill --config=configs/radiograph.py:to_montgomery  # as random, from Shenzhen alone
  gxdistill distill --config=configs/radiograph.py:private  # one private release, epsilon 8
  gxdistill distill --config=configs/radiograph.py:smoke    # a minute, 60 images

Each image is normalised by the ranks of its organ's grey values, so that a package also serves the
other hospital, whose machine shows lungs nearly twice as bright: "to_shenzhen" and "to_montgomery"
keep one hospital out and measure on all its patients. Chosen on training patients of both, each in
turn the other's. Brightness, contrast and gamma in the replay of "to_montgomery" helped there, but
not on all of Montgomery, and were left off. "known_cohort" and "random_cohort" (900) normalise once
over all.

For known initial weights, images are learned on from draws of a mixture of Gaussians, labelled by
networks that were trained on all real patches: chosen on held-out training patients, where images
learned from noise, "known_from_noise", fell behind.

For any initial weights, learning on gave held-out training patients 7 points of balanced accuracy
over as many random real patches with soft labels where images are "few", 60, and nothing where they
are as many as a package holds. So "random" packages 6,600 patches as they were drawn from a mixture
of Gaussians, 4 bits a pixel, labelled by networks that were trained on all real patches. That the
network is of width 64, clusters have 50 patches, images are flipped at the replay and gone through
12 times was chosen on training patients, also of one hospital for the other's; that whole images
are decided by zones of the lungs, too. Sharper labels, of temperature 0.1, and noise drawn in the
replay carried better from Shenzhen to training patients of Montgomery, but not the other way, so
"to_montgomery" has both.

"private" releases statistics of whole images once, at delta 1e-3, a patient being the unit, and
draws images that match them; "private_smoke" does so in a minute.

Of "random", images are decided with 0.98 of the ceiling's harmonic mean of sensitivity and
specificity, and 1.00 of its AUC. All results, commands and device: benchmarks/README.md.
"""

import os

import ml_collections

from gxdistill.tasks.distillation.settings import default_config, shrink_to_smoke

_EXTERNAL = {"to_shenzhen": "Shenzhen", "to_montgomery": "Montgomery"}
_BY_COHORT = ("known_cohort", "random_cohort")
_VARIANTS = (
    *("known", "known_from_noise", "random", "learned", "few", *_EXTERNAL, *_BY_COHORT),
    *("private", "private_smoke", "smoke"),
)


def get_config(variant: str = "known") -> ml_collections.ConfigDict:
    """Makes the config: "known" or "random" initial weights, "learned" for random ones, "smoke"."""
    if variant not in _VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {_VARIANTS}")
    config = default_config()
    config.name = f"radiograph_{variant}"
    by_cohort = variant in _BY_COHORT
    variant = variant.removesuffix("_cohort")
    config.data.path = os.environ.get("GXDISTILL_DATA", "../shared/data")
    config.data.manifest = "cxr_tb_lung/labels.csv"
    config.data.columns = {"image": "images/{id}.jpg", "mask": "masks/{id}.png"}
    config.data.label_names = ("normal", "tuberculosis")
    config.data.downscale = 4
    config.data.normalise = "cohort" if by_cohort else "organ_histogram"
    config.patch.size = 16
    config.patch.stride = 8
    config.network.options = {"width": 32, "depth": 3, "norm": "instance"}
    config.decision.rule = "soft"  # fresh networks differ less in it than in counts
    config.distill.update(init="known", steps=20, epochs=2, outer_steps=1500)
    config.distill.optimizer.images_lr = 0.1
    config.evaluate.ceiling.steps = 1000
    if variant == "known" and not by_cohort:
        config.distill.update(steps=80, images_per_step=10, epochs=1, precision="uint8")
        config.distill.update(started_from="mixture", started_labels="networks")
    if variant in _EXTERNAL:  # As "random", learned from one hospital for the other.
        config.data.external = _EXTERNAL[variant]
    if variant == "random" or variant in _EXTERNAL:
        config.distill.update(init="random", steps=300, epochs=12, outer_steps=0)
        config.distill.update(started_from="mixture", started_labels="networks")
        config.distill.update(inner="adam", start_lr=0.001, start_schedule="cosine")
        if not by_cohort:  # More images are worth more than finer greys.
            config.network.options.width = 64  # The network is the receiver's to train.
            config.distill.update(steps=110, images_per_step=60, start_lr=0.003)
            config.distill.update(cluster_patches=50, replay_augmentations=("flip",))
            config.distill.precision = "uint4"
            config.decision.rule = "zones"
            config.evaluate.threshold_images = 600  # All that train: zones have weights to fit.
    if variant == "to_montgomery":
        config.distill.update(label_temperature=0.1, replay_augmentations=("flip", "noise"))
    if variant == "learned":
        config.distill.update(init="random", steps=100, epochs=1, start_lr=0.05, outer_steps=5000)
    if variant == "few":
        config.distill.update(init="random", steps=1, images_per_step=60, epochs=20, start_lr=0.05)
        config.distill.update(started_from="mixture", started_labels="networks", outer_steps=400)
        config.distill.precision = "uint8"
    if variant.startswith("private"):
        # Whole images without masks: where in the chest something lies then counts, too.
        config.data.columns = {"image": "images/{id}.jpg"}
        config.data.update(downscale=16, normalise="image_histogram", levels="fixed")
        config.patch.update(size=32, stride=32)
        config.network.options = {"width": 16, "depth": 1, "norm": "none"}
        config.distill.update(init="random", steps=15, images_per_step=100, epochs=50)
        config.distill.update(inner="adam", start_lr=0.003, start_schedule="cosine")
        config.distill.replay_augmentations = ("brightness", "contrast", "noise")
        config.distill.precision = "uint4"
        config.privacy.update(mechanism="statistics", epsilon=8.0, delta=1e-3)
        config.privacy.statistics.update(features="cell_moments", cell=2, count=200, pixels=60)
        config.privacy.statistics.update(steps=0, detail=0.6, sharpness=20.0)
        config.privacy.statistics.weights.update(sums=0.6, pixel_second=0.35)
        config.evaluate.update(networks=3, baseline_networks=1)
        config.evaluate.ceiling.update(networks=1, steps=500)
    if variant == "private_smoke":
        config.data.limit = 60
        config.distill.update(steps=2, images_per_step=4, epochs=2)
        config.privacy.statistics.update(count=12, pixels=8, steps=4, checkpoint_every=2)
        shrink_to_smoke(config)
    if variant == "smoke":
        config.data.limit = 60
        config.data.downscale = 8
        config.patch.size = 8
        config.patch.stride = 8
        config.network.options = {"width": 4, "depth": 2, "norm": "instance"}
        config.distill.update(steps=2, epochs=1)
        shrink_to_smoke(config)
    return config
