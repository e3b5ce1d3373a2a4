r"""Segments nuclei in H&E tiles of 32 hospitals, or the hippocampus in MRI slices, by a U-Net.

  gxdistill segment train --config=configs/segmentation.py --config.data.path=../shared/data
  gxdistill segment train --config=configs/segmentation.py:hippocampus
  gxdistill segment train --config=configs/segmentation.py:shapes  # drawn; a federation's start
  gxdistill segment train --config=configs/segmentation.py:smoke   # a minute, drawn radiographs

"monuseg": 30 training and 14 test tiles of 1000 px in colours, halved to 500 px; Kumar et al., IEEE
TMI 39(5):1380, 2020. "hippocampus": slices across the long axis of 195 training and 65 test
subjects at 1 mm, two structures; Simpson et al. 2019, https://arxiv.org/abs/1902.09063; measured
of whole volumes. "shapes": drawn tissue, of no patient, for `federation.start` of
configs/federation.py:hippocampus, whose network it trains.
"""

import os

import ml_collections

from gxdistill.tasks.segmentation.settings import default_config

_VARIANTS = ("monuseg", "hippocampus", "shapes", "smoke")


def get_config(variant: str = "monuseg") -> ml_collections.ConfigDict:
    """Makes the config: "monuseg", "hippocampus", "shapes" or "smoke"."""
    if variant not in _VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {_VARIANTS}")
    config = default_config()
    config.name = f"segmentation_{variant}"
    data = os.environ.get("GXDISTILL_DATA", "../shared/data")
    if variant == "monuseg":
        config.data.path = data
        config.data.manifest = "hne_monuseg/labels.csv"
        config.data.columns = {
            "image": "images/{id}.jpg",
            "mask": "masks/{id}.png",
            "site": "organ",
        }
        config.data.mask_classes = ("background", "nucleus")
        config.data.colour = True
        config.data.downscale = 2
        config.patch.update(size=128, stride=4)
        config.network.options = {"width": 16, "depth": 3}
        config.segment.update(steps=2000, batch=8, augment=("dihedral", "stain", "intensity"))
        config.segment.overlap = 64
    if variant == "hippocampus":
        config.data.kind = "hippocampus"
        config.data.path = os.path.join(data, "mri_hippocampus")
        config.data.mask_classes = ("background", "anterior", "posterior")
        config.data.normalise = "image"
        config.patch.update(size=48, stride=48)
        config.network.options = {"width": 24, "depth": 3}
        config.sampling.classes = (0.1, 0.9)
        config.segment.update(steps=1500, batch=32, augment=("affine", "intensity"))
        config.segment.update(overlap=0, flips=False, measure="patient")
    if variant == "shapes":
        config.data.kind = "shapes"
        config.data.update(patients=4000, size=48, train_share=0.95)
        config.data.mask_classes = ("background", "large", "small")
        config.patch.update(size=48, stride=48)
        config.network.options = {"width": 8, "depth": 2}
        config.segment.update(steps=1200, batch=16, lr=0.01, overlap=0, flips=False)
        config.segment.augment = ()
    if variant == "smoke":
        config.data.kind = "phantom"
        config.data.update(patients=16, size=64, mask_classes=("background", "stomach"))
        config.patch.update(size=32, stride=8)
        config.network.options = {"width": 4, "depth": 2, "levels": 2}
        config.segment.update(steps=40, batch=4, steps_per_call=10, checkpoint_every=20)
        config.segment.update(overlap=16, augment=("affine", "intensity"), lr=0.01)
    return config
