r"""Hospitals that learn together to segment, simulated on one machine.

  gxdistill federate simulate --config=configs/federation.py:monuseg      # nuclei, by organ
  gxdistill federate simulate --config=configs/federation.py:hippocampus  # dealt to four sites
  gxdistill federate simulate --config=configs/federation.py:radiograph   # lungs, two hospitals
  gxdistill federate simulate --config=configs/federation.py:smoke        # a minute, phantoms

The cohorts are those of configs/segmentation.py and configs/radiograph.py. "monuseg" has
five sites of six training tiles: four organs, and the three others; "hippocampus" deals its 195
training subjects out to four sites, which start from what a segmenter learned of drawn tissue, the
variant "shapes" of configs/segmentation.py, to be trained first; "radiograph" segments lungs at
Montgomery and Shenzhen.
"""

import os

import ml_collections

from gxdistill.tasks.federation.settings import default_config

_VARIANTS = ("monuseg", "hippocampus", "radiograph", "smoke")


def get_config(variant: str = "monuseg") -> ml_collections.ConfigDict:
    """Makes the config: "monuseg", "hippocampus", "radiograph" or "smoke"."""
    if variant not in _VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {_VARIANTS}")
    config = default_config()
    config.name = f"federation_{variant}"
    data = os.environ.get("GXDISTILL_DATA", "../shared/data")
    if variant == "monuseg":
        config.data.path = data
        config.data.manifest = "hne_monuseg/labels.csv"
        config.data.columns = {
            "image": "images/{id}.jpg",
            "mask": "masks/{id}.png",
            "site": "organ",
        }
        config.data.label_names = ()
        config.data.mask_classes = ("background", "nucleus")
        config.data.colour = True
        config.data.downscale = 2
        config.patch.update(size=128, stride=4)
        config.network.options = {"width": 16, "depth": 3}
        config.federation.update(rounds=25, local_steps=20, batch=8, overlap=64, least=6)
        config.federation.augment = ("dihedral", "stain", "intensity")
    if variant == "hippocampus":
        config.data.kind = "hippocampus"
        config.data.path = os.path.join(data, "mri_hippocampus")
        config.data.label_names = ()
        config.data.mask_classes = ("background", "anterior", "posterior")
        config.data.normalise = "image"
        config.patch.update(size=48, stride=48)
        config.network.options = {"width": 8, "depth": 2}
        config.sampling.classes = (0.1, 0.9)
        config.federation.update(deal=4, rounds=25, local_steps=20, batch=16, overlap=0)
        config.federation.start = "runs/segmentation_shapes/segmenter.gxs"
        config.federation.augment = ("affine", "intensity")
        config.federation.protect = ("site", "patient")
        config.federation.site.update(clip=5.0, noise=0.003)
        # Chosen on training subjects. The clip is below all norms: only directions are added up.
        config.federation.patient.update(rounds=250, sampling=0.2, clip=0.05, lr=0.01)
        config.federation.patient.update(steps=8, steps_lr=0.1, crops=4, shown=0.8)
        config.federation.patient.augmented = False
    if variant == "radiograph":
        config.data.path = data
        config.data.manifest = "cxr_tb_lung/labels.csv"
        config.data.columns = {"image": "images/{id}.jpg", "mask": "masks/{id}.png"}
        config.data.label_names = ("normal", "tuberculosis")
        config.data.downscale = 4
        config.data.normalise = "image"
        config.network.options = {"width": 8, "depth": 3}
        config.patch.update(size=96, stride=16)
        config.federation.update(secure=True, protect=("site", "patient"))
    if variant == "smoke":
        config.data.kind = "phantom"
        config.data.update(patients=16, size=64)
        config.network.options = {"width": 4, "depth": 1}
        config.patch.update(size=16, stride=8)
        config.federation.update(rounds=3, local_steps=2, batch=4, overlap=8, secure=True)
        config.federation.update(protect=("site", "patient"), checkpoint_every=1)
        config.federation.patient.update(rounds=3, crops=2, sampling=0.5, noise=1.0)
    return config
